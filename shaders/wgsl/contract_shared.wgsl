// Batched matrix product, workgroup delivery: a workgroup stages BK of K of its operands in workgroup memory, and each
// invocation owns RM rows × RN columns of C; SLICES invocations share a tile's sums.
// Constants: BATCH, M, N, K, FROM..TO of K; RM, RN, BK; WG_M × WG_N × SLICES invocations a workgroup; TILES_M × TILES_N workgroups a
// batch, down M first; GROUPS_X. Generated: Tile, Rows, TAKEN, step, take_rows, LAST_N, combine, stage_b, tile_a, tile_b.
// Hooks: row_a(batch, m), load_a(row, batch, m, k), column_b(batch, n), load_b(column, batch, k, n), store(batch, m, n, value),
// partial(batch, m, n).

// Columns between the fours that one invocation owns.
const STRIDE_N: u32 = 4u * WG_N;
const BM: u32 = RM * WG_M;
const BN: u32 = RN * WG_N;

// Fours of K by row, and fours of B as they are loaded.
var<workgroup> a_staged: array<vec4<f32>, BM * BK / 4u>;
var<workgroup> b_staged: array<vec4<f32>, BN * BK / 4u>;

@compute @workgroup_size(WG_N, WG_M, SLICES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * GROUPS_X + group.x;
    let batch = index / (TILES_M * TILES_N);
    if batch >= BATCH {
        return;
    }
    let first_m = index % TILES_M * BM;
    let first_n = index / TILES_M % TILES_N * BN;
    var c: Tile;
    for (var k = FROM; k < TO; k += BK) {
        workgroupBarrier();
        for (var i = lane; i < BM * BK / 4u; i += WG_M * WG_N * SLICES) {
            // Invocations next to each other read along K.
            let at = k + i % (BK / 4u) * 4u;
            let row = i / (BK / 4u);
            var value = vec4<f32>();
            if at < TO {
                let m = min(first_m + row, M - 1u);
                value = load_a(row_a(batch, m), batch, m, at);
            }
            a_staged[i % (BK / 4u) * BM + row] = value;
        }
        for (var i = lane; i < BN * BK / 4u; i += WG_M * WG_N * SLICES) {
            stage_b(i, batch, first_n, k);
        }
        workgroupBarrier();
        let share = BK / SLICES;
        for (var kk = local.z * share; kk < (local.z + 1u) * share; kk += 4u) {
            step(&c, batch, local.y * RM, local.x * 4u, kk);
        }
    }
    let m = first_m + local.y * RM;
    let end = min(m + RM, M);
    // All invocations meet in `combine`, whatever part of their tiles lies inside.
    for (var down = 0u; down < RM; down += TAKEN) {
        let first = m + down;
        var values = combine(take_rows(&c), local.y * WG_N + local.x, local.z);
        for (var i = 0u; i < TAKEN * RN / 4u; i++) {
            let row = first + i / (RN / 4u);
            let column = first_n + local.x * 4u + i % (RN / 4u) * STRIDE_N;
            if local.z == 0u && row < end && column < N {
                var value = values[i];
                if FROM > 0u {
                    value += partial(batch, row, column);
                }
                store(batch, row, column, value);
            }
        }
    }
}
