// Scatter: one invocation a result looks through the updates in order, without atomics.
// Constants: COUNT results, UPDATES updates, of which FROM..TO; WG, GROUPS_X. Generated: A, written.
// Hooks: initial(i), hits(i, j), update(i, j), store(i, value).

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * GROUPS_X + group.x) * WG + lane;
    if i >= COUNT {
        return;
    }
    var value = initial(i);
    for (var j = FROM; j < TO; j++) {
        if hits(i, j) {
            value = written(value, update(i, j));
        }
    }
    store(i, value);
}
