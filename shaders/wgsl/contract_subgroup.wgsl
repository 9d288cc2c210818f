// Batched matrix product, subgroup delivery: a workgroup is one subgroup of WIDTH lanes and owns RM rows × WIDTH·RN
// columns of C; lanes load different rows of A and hand them out, and load their own columns of B.
// Constants: BATCH, M, N, K, FROM..TO of K; RM, RN, WIDTH; FOURS of K an iteration; TILES_M × TILES_N workgroups a batch, down M first; GROUPS_X.
// Generated: Tile, Rows, Places, places, TAKEN, advance, take_rows, LAST_N.
// Hooks: row_a(batch, m), load_a(row, batch, m, k), column_b(batch, n), load_b(column, batch, k, n), store(batch, m, n, value),
// partial(batch, m, n).

// Columns between the fours that one lane owns.
const STRIDE_N: u32 = 4u * WIDTH;
const STEPS: u32 = (TO - FROM + 4u * FOURS - 1u) / (4u * FOURS);

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let index = group.y * GROUPS_X + group.x;
    let batch = index / (TILES_M * TILES_N);
    if batch >= BATCH {
        return;
    }
    let m = index % TILES_M * RM;
    let n = (index / TILES_M % TILES_N * (WIDTH * RN)) + lane * 4u;
    let places = places(batch, m, n, lane);
    var c: Tile;
    // Counted by iterations, so that compilers see of what k is a multiple.
    for (var i = 0u; i < STEPS; i++) {
        advance(&c, places, batch, m, n, FROM + i * (4u * FOURS), lane);
    }
    let end = min(m + RM, M);
    for (var first = m; first < end; first += TAKEN) {
        var values = take_rows(&c);
        for (var i = 0u; i < TAKEN * RN / 4u; i++) {
            let row = first + i / (RN / 4u);
            let column = n + i % (RN / 4u) * STRIDE_N;
            if row < end && column < N {
                var value = values[i];
                if FROM > 0u {
                    value += partial(batch, row, column);
                }
                store(batch, row, column, value);
            }
        }
    }
}
