// Cumulative combination: one invocation a row, in order.
// Constants: ROWS rows of LEN elements, of which the places FROM..TO in scan order; REVERSE, EXCLUSIVE; WG, GROUPS_X.
// Generated: A, combine, neutral.
// Hooks: load(row, k), store(row, k, value), partial(row).

// The element at a place of the scan.
fn element(place: u32) -> u32 {
    return select(place, LEN - 1u - place, REVERSE);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (group.y * GROUPS_X + group.x) * WG + lane;
    if row >= ROWS {
        return;
    }
    var value = neutral();
    if FROM > 0u {
        value = partial(row);
        if EXCLUSIVE {
            value = combine(value, load(row, element(max(FROM, 1u) - 1u)));
        }
    }
    for (var place = FROM; place < TO; place++) {
        let k = element(place);
        let after = combine(value, load(row, k));
        if EXCLUSIVE {
            store(row, k, value);
        } else {
            store(row, k, after);
        }
        value = after;
    }
}
