// Reduction of rows read by fours: each lane has four streams, which end in one value.
// Constants: ROWS rows of LEN elements, of which FROM..TO (FROM a multiple of 4); LANES invocations a row; BLOCK fours are combined at a
// time, which keeps the rounding errors of sums small; ROLLED; WG, GROUPS_X.
// Generated: A, combine, combine4, neutral, all_combined(x, lane) over a row's lanes.
// Hooks: load(row, quad), store(row, value), partial(row).

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.y * GROUPS_X + group.x) * WG + lane;
    let inside = place / LANES < ROWS;
    let row = min(place / LANES, ROWS - 1u);
    let first = place % LANES;
    // Nothing, which compilers do not know: they cannot unroll what is ROLLED.
    let more = select(0u, group.z, ROLLED);
    let end = TO / 4u + more;
    var streams = vec4<A>(neutral());
    for (var start = FROM / 4u + first; start < end; start += BLOCK * LANES) {
        let stop = min(start + BLOCK * LANES, end);
        var block = vec4<A>(neutral());
        for (var k = start; k < stop; k += LANES) {
            block = combine4(block, load(row, k));
        }
        streams = combine4(streams, block);
    }
    var value = combine(combine(streams.x, streams.y), combine(streams.z, streams.w));
    // The last elements, where they are not four.
    if TO % 4u > 0u && (TO / 4u - FROM / 4u) % LANES == first {
        let x = load(row, TO / 4u);
        for (var i = 0u; i < TO % 4u; i++) {
            value = combine(value, x[i]);
        }
    }
    value = all_combined(value, lane);
    if inside && first == 0u {
        if FROM > 0u {
            value = combine(partial(row), value);
        }
        store(row, value);
    }
}
