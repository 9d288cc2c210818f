// Reduction of rows: one workgroup a row. Each invocation takes every WG-th element, then a tree over workgroup
// memory combines the invocations' values.
// Constants: ROWS rows of LEN elements, of which FROM..TO; WG (a power of two), GROUPS_X. Generated: A, combine, neutral.
// Hooks: load(row, k), store(row, value), partial(row).

var<workgroup> lanes: array<A, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GROUPS_X + group.x;
    if row >= ROWS {
        return;
    }
    var value = neutral();
    for (var k = FROM + lane; k < TO; k += WG) {
        value = combine(value, load(row, k));
    }
    lanes[lane] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lane < half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        workgroupBarrier();
    }
    if lane == 0u {
        if FROM > 0u {
            store(row, combine(partial(row), lanes[0]));
        } else {
            store(row, lanes[0]);
        }
    }
}
