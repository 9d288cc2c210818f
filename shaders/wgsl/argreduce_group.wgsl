// Index of the best element of rows: one workgroup a row; ties go to the lowest index.
// Constants: ROWS rows of LEN elements, of which FROM..TO; WG (a power of two), GROUPS_X. Generated: A, precedes.
// Hooks: load(row, k), store(row, index), partial(row).

var<workgroup> values: array<A, WG>;
var<workgroup> indices: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GROUPS_X + group.x;
    if row >= ROWS {
        return;
    }
    // Each invocation starts from an element that it may hold: what was found before, or its first (or the last one).
    var index = min(FROM + lane, TO - 1u);
    if FROM > 0u && lane == 0u {
        index = u32(partial(row));
    }
    var value = load(row, index);
    for (var k = FROM + lane; k < TO; k += WG) {
        let other = load(row, k);
        if precedes(other, value) {
            value = other;
            index = k;
        }
    }
    values[lane] = value;
    indices[lane] = index;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lane < half {
            let a = values[lane];
            let b = values[lane + half];
            let earlier = indices[lane + half] < indices[lane];
            if precedes(b, a) || (earlier && !precedes(a, b)) {
                values[lane] = b;
                indices[lane] = indices[lane + half];
            }
        }
        workgroupBarrier();
    }
    if lane == 0u {
        store(row, i32(indices[0]));
    }
}
