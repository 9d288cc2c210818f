// Batched matrix product of halves with sums in f32, by the matrix units of subgroups: a workgroup of SG_M × SG_N subgroups of
// WIDTH invocations stages BK of K of its operands, and each subgroup owns RM × RN matrices of T × T of C.
// Constants: BATCH, M, N, K, FROM..TO of K; T, WIDTH; RM, RN, BK; SG_M, SG_N; TILES_M × TILES_N workgroups a batch, down M
// first; GROUPS_X. Generated: MatrixA, MatrixB, MatrixC, LAST_N, stage_b.
// Hooks: row_a(batch, m), load_a(row, batch, m, k), column_b(batch, n), load_b(column, batch, k, n), store(batch, m, n, value),
// partial(batch, m, n).

const BM: u32 = SG_M * RM * T;
const BN: u32 = SG_N * RN * T;
const LANES: u32 = SG_M * SG_N * WIDTH;

// Rows of A, columns of B, and one matrix of C for each subgroup.
var<workgroup> a_staged: array<f16, BM * BK>;
var<workgroup> b_staged: array<f16, BN * BK>;
var<workgroup> c_staged: array<f32, SG_M * SG_N * T * T>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GROUPS_X + group.x;
    let batch = index / (TILES_M * TILES_N);
    if batch >= BATCH {
        return;
    }
    let first_m = index % TILES_M * BM;
    let first_n = index / TILES_M % TILES_N * BN;
    let subgroup = lane / WIDTH;
    let own_m = subgroup % SG_M * (RM * T);
    let own_n = subgroup / SG_M * (RN * T);
    var c: array<MatrixC, RM * RN>;
    for (var i = 0u; i < RM * RN; i++) {
        c[i] = MatrixC();
    }
    for (var k = FROM; k < TO; k += BK) {
        workgroupBarrier();
        for (var i = lane; i < BM * BK / 4u; i += LANES) {
            // Invocations next to each other read along K.
            let kk = i % (BK / 4u) * 4u;
            let row = i / (BK / 4u);
            var value = vec4<f32>();
            if k + kk < TO {
                let m = min(first_m + row, M - 1u);
                value = load_a(row_a(batch, m), batch, m, k + kk);
            }
            a_staged[row * BK + kk] = f16(value.x);
            a_staged[row * BK + kk + 1u] = f16(value.y);
            a_staged[row * BK + kk + 2u] = f16(value.z);
            a_staged[row * BK + kk + 3u] = f16(value.w);
        }
        for (var i = lane; i < BN * BK / 4u; i += LANES) {
            stage_b(i, batch, first_n, k);
        }
        workgroupBarrier();
        for (var kk = 0u; kk < BK; kk += T) {
            var b: array<MatrixB, RN>;
            for (var j = 0u; j < RN; j++) {
                b[j] = load_matrix_b((own_n + j * T) * BK + kk);
            }
            for (var i = 0u; i < RM; i++) {
                let a = load_matrix_a((own_m + i * T) * BK + kk);
                for (var j = 0u; j < RN; j++) {
                    c[i * RN + j] = coopMultiplyAdd(a, b[j], c[i * RN + j]);
                }
            }
        }
    }
    for (var i = 0u; i < RM * RN; i++) {
        workgroupBarrier();
        coopStoreT(c[i], &c_staged[subgroup * (T * T)], T);
        workgroupBarrier();
        for (var four = lane % WIDTH; four < T * T / 4u; four += WIDTH) {
            let row = first_m + own_m + i / RN * T + four / (T / 4u);
            let column = first_n + own_n + i % RN * T + four % (T / 4u) * 4u;
            if row < M && column < N {
                let at = subgroup * (T * T) + four * 4u;
                var value = vec4(c_staged[at], c_staged[at + 1u], c_staged[at + 2u], c_staged[at + 3u]);
                if FROM > 0u {
                    value += partial(batch, row, column);
                }
                store(batch, row, column, value);
            }
        }
    }
}
