// Softmax of rows: the largest element and the sum of exponentials in one pass over the row, results in another.
// Constants: ROWS rows of LEN elements in QUADS fours; LANES invocations a row; ROLLED; WG, GROUPS_X.
// Generated: all_sum(x, lane), all_max(x, lane) over a row's lanes.
// Hooks: load(row, quad), store(row, quad, value).

// The lowest finite number.
const LOWEST: f32 = -3.4028234e38f;

fn exps(x: vec4<f32>) -> vec4<f32> {
    return vec4(exp_of(x.x), exp_of(x.y), exp_of(x.z), exp_of(x.w));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.y * GROUPS_X + group.x) * WG + lane;
    let inside = place / LANES < ROWS;
    let row = min(place / LANES, ROWS - 1u);
    let first = place % LANES;
    // Nothing, which compilers do not know: they cannot unroll what is ROLLED.
    let more = select(0u, group.z, ROLLED);
    var top = LOWEST;
    var sum = 0.0f;
    for (var k = first; k < LEN / 4u + more; k += LANES) {
        let x = load(row, k);
        let high = max(max(max(x.x, x.y), max(x.z, x.w)), top);
        let e = exps(x - high);
        sum = sum * exp_of(top - high) + ((e.x + e.y) + (e.z + e.w));
        top = high;
    }
    // The row's last elements, where they are not four.
    if LEN % 4u > 0u && (QUADS - 1u) % LANES == first {
        let x = load(row, QUADS - 1u);
        for (var i = 0u; i < LEN % 4u; i++) {
            let high = max(x[i], top);
            sum = sum * exp_of(top - high) + exp_of(x[i] - high);
            top = high;
        }
    }
    let highest = all_max(top, lane);
    let scale = 1.0f / all_sum(sum * exp_of(top - highest), lane);
    for (var k = first; k < QUADS + more; k += LANES) {
        if inside {
            store(row, k, exps(load(row, k) - highest) * scale);
        }
    }
}
