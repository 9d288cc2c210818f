// Top-k by counting: one invocation an element counts the elements that come before it in the order sought.
// Constants: ROWS rows of LEN elements, PICKED of each row; comparisons with FROM..TO; WG, GROUPS_X. Generated: A, precedes.
// Hooks: load(row, k), store(row, rank, index), partial(row, i), carry(row, i, count).

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.y * GROUPS_X + group.x) * WG + lane;
    let row = place / LEN;
    if row >= ROWS {
        return;
    }
    let i = place % LEN;
    let value = load(row, i);
    var count = 0u;
    if FROM > 0u {
        count = partial(row, i);
    }
    for (var j = FROM; j < TO; j++) {
        let other = load(row, j);
        // Of equals, the lower index comes first.
        if precedes(other, value) || (j < i && !precedes(value, other)) {
            count++;
        }
    }
    if TO < LEN {
        carry(row, i, count);
    } else if count < PICKED {
        store(row, count, i32(i));
    }
}
