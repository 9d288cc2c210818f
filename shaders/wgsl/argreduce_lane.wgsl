// Index of the best element of rows: one invocation a row; ties go to the lowest index.
// Constants: ROWS rows of LEN elements, of which FROM..TO; WG, GROUPS_X. Generated: A, precedes.
// Hooks: load(row, k), store(row, index), partial(row).

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (group.y * GROUPS_X + group.x) * WG + lane;
    if row >= ROWS {
        return;
    }
    var index = FROM;
    if FROM > 0u {
        index = u32(partial(row));
    }
    var value = load(row, index);
    for (var k = FROM; k < TO; k++) {
        let other = load(row, k);
        if precedes(other, value) {
            value = other;
            index = k;
        }
    }
    store(row, i32(index));
}
