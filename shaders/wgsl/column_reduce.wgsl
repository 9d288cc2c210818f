// Reduction of columns: each has its sum (or product, or extreme) over the rows, and four neighbours are read as one vector.
// Constants: ROWS columns, a multiple of 4, of LEN elements, of which FROM..TO; LANES invocations four columns; BLOCK elements are
// combined at a time, which keeps the rounding errors of sums small; ROLLED; WG, GROUPS_X.
// Generated: A, combine4, neutral, all_combined(x, lane) over the lanes of four columns.
// Hooks: load(quad, k), store(quad, value), partial(quad).

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.y * GROUPS_X + group.x) * WG + lane;
    let inside = place / LANES < ROWS / 4u;
    let quad = min(place / LANES, ROWS / 4u - 1u);
    let first = place % LANES;
    // Nothing, which compilers do not know: they cannot unroll what is ROLLED.
    let more = select(0u, group.z, ROLLED);
    let end = TO + more;
    var value = vec4<A>(neutral());
    for (var start = FROM + first; start < end; start += BLOCK * LANES) {
        let stop = min(start + BLOCK * LANES, end);
        var block = vec4<A>(neutral());
        for (var k = start; k < stop; k += LANES) {
            block = combine4(block, load(quad, k));
        }
        value = combine4(value, block);
    }
    value = all_combined(value, lane);
    if inside && first == 0u {
        if FROM > 0u {
            value = combine4(partial(quad), value);
        }
        store(quad, value);
    }
}
