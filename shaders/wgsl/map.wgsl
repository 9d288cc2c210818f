// Pointwise: one invocation an element.
// Constants: COUNT elements, WG invocations a workgroup, GROUPS_X workgroups along x.
// Hooks: element(i).

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * GROUPS_X + group.x) * WG + lane;
    if i < COUNT {
        element(i);
    }
}
