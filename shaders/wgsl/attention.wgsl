// Attention: softmax(q·kᵀ)·v for a tile of queries, keys in blocks, with a running maximum and sum (online softmax); the scores
// are never in memory. An invocation owns QL queries.
// Constants: BATCH problems of N queries, TILES workgroups each; QL; D_QUADS and E_QUADS fours of a query and of a result;
// WG, GROUPS_X; INDEXED. Generated: Queries, Results, States, Taken, TAKEN, query_of, push, attend, take.
// Hooks: load_q(batch, n, quad), load_k(batch, m, quad), load_v(batch, m, quad), store(batch, n, quad, value);
// seen(batch, n, m), bias(batch, n, m).

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GROUPS_X + group.x;
    let batch = index / TILES;
    if batch >= BATCH {
        return;
    }
    let tile = index % TILES;
    // Nothing, which compilers do not know: unrolled, INDEXED loops would leave constant indices.
    let more = select(0u, group.z, INDEXED);
    var q: Queries;
    for (var j = 0u; j < QL + more; j++) {
        let n = min(query_of(tile, lane, j), N - 1u);
        for (var quad = 0u; quad < D_QUADS + more; quad++) {
            push(&q, j * D_QUADS + quad, load_q(batch, n, quad));
        }
    }
    var c: Results;
    var state: States;
    attend(&q, &c, &state, batch, tile, lane);
    for (var j = 0u; j < QL + more; j++) {
        let n = query_of(tile, lane, j);
        let sum = state[0].y;
        for (var i = 1u; i < QL; i++) {
            state[i - 1u] = state[i];
        }
        // Nothing seen gives 0.
        let scale = select(1.0f / sum, 0.0f, sum == 0.0f);
        for (var quad = 0u; quad < E_QUADS + more; quad += TAKEN) {
            var values = take(&c, j * E_QUADS + quad);
            if n < N {
                for (var i = 0u; i < TAKEN; i++) {
                    store(batch, n, quad + i, values[i] * scale);
                }
            }
        }
    }
}
