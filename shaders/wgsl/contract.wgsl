// Batched matrix product, direct delivery: each invocation owns RM rows × RN columns of C.
// Constants: BATCH, M, N, K, FROM..TO of K; RM, RN; WG_M × WG_N invocations a workgroup; TILES_M × TILES_N workgroups a
// batch, down M first; GROUPS_X. Generated: Tile, Row, step, take_row, LAST_N.
// Hooks: load_a(batch, m, k), load_b(batch, k, n), store(batch, m, n, value), partial(batch, m, n).

// Columns between the fours that one invocation owns.
const STRIDE_N: u32 = 4u * WG_N;

@compute @workgroup_size(WG_N, WG_M)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let index = group.y * GROUPS_X + group.x;
    let batch = index / (TILES_M * TILES_N);
    if batch >= BATCH {
        return;
    }
    let m = (index % TILES_M * WG_M + local.y) * RM;
    let n = (index / TILES_M % TILES_N * (WG_N * RN)) + local.x * 4u;
    var c: Tile;
    for (var k = FROM; k < TO; k += 4u) {
        step(&c, batch, m, n, k);
    }
    for (var row = m; row < min(m + RM, M); row++) {
        var values = take_row(&c);
        for (var q = 0u; q < RN / 4u; q++) {
            let column = n + q * STRIDE_N;
            if column < N {
                var value = values[q];
                if FROM > 0u {
                    value += partial(batch, row, column);
                }
                store(batch, row, column, value);
            }
        }
    }
}
