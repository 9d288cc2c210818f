// Reduction of rows: one invocation a row.
// Constants: ROWS rows of LEN elements, of which FROM..TO; BLOCK elements are combined at a time, which keeps the
// rounding errors of sums small; WG, GROUPS_X. Generated: A, combine, neutral.
// Hooks: load(row, k), store(row, value), partial(row).

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (group.y * GROUPS_X + group.x) * WG + lane;
    if row >= ROWS {
        return;
    }
    var value = neutral();
    if FROM > 0u {
        value = partial(row);
    }
    for (var start = FROM; start < TO; start += BLOCK) {
        let end = min(start + BLOCK, TO);
        var block = neutral();
        for (var k = start; k < end; k++) {
            block = combine(block, load(row, k));
        }
        value = combine(value, block);
    }
    store(row, value);
}
