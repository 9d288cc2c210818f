// Top-k by selection: the lanes of a workgroup look for the least key that is picked, two bits a pass over the row, then for the last place
// of those with that key, gather the PICKED elements in workgroup memory, and count the order among them.
// Keys are larger the better an element is; the least key is also that of what lies beyond the row, at a higher place.
// Constants: ROWS rows of LEN elements in QUADS fours, PICKED of each row; PLACE_BITS (even) that hold any place; LANES invocations a row; ROLLED;
// WG (LANES), GROUPS_X. Generated: A, key_of, all_sum(x, lane) over the lanes.
// Hooks: load(row, quad), store(row, rank, index).

var<workgroup> picked: array<u32, PICKED>;
var<workgroup> places: array<u32, PICKED>;
var<workgroup> taken: atomic<u32>;

const FOUR: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);

// The keys of four elements; what lies beyond the row has the least key.
fn keys(row: u32, quad: u32) -> vec4<u32> {
    let x = load(row, quad);
    let all = vec4<u32>(key_of(x.x), key_of(x.y), key_of(x.z), key_of(x.w));
    if LEN % 4u == 0u {
        return all;
    }
    return select(vec4<u32>(), all, vec4<u32>(quad * 4u) + FOUR < vec4<u32>(LEN));
}

fn ones(which: vec4<bool>) -> vec4<u32> {
    return select(vec4<u32>(), vec4<u32>(1u), which);
}

fn sum(x: vec4<u32>) -> u32 {
    return (x.x + x.y) + (x.z + x.w);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GROUPS_X + group.x;
    if row >= ROWS {
        return;
    }
    // Nothing, which compilers do not know: they cannot unroll what is ROLLED.
    let more = select(0u, group.z, ROLLED);
    let end = QUADS + more;
    if lane == 0u {
        atomicStore(&taken, 0u);
    }
    // The largest bound that at least PICKED keys reach, and how many keys are above it.
    var bound = 0u;
    var above = 0u;
    for (var bits = 0u; bits < 32u; bits += 2u) {
        let step = 1u << (30u - bits);
        var a = vec4<u32>();
        var b = vec4<u32>();
        var c = vec4<u32>();
        for (var k = lane; k < end; k += LANES) {
            let x = keys(row, k);
            a += ones(x >= vec4<u32>(bound + step));
            b += ones(x >= vec4<u32>(bound + 2u * step));
            c += ones(x >= vec4<u32>(bound + 3u * step));
        }
        let counts = all_sum(vec3<u32>(sum(a), sum(b), sum(c)), lane);
        if counts.z >= PICKED {
            bound += 3u * step;
        } else if counts.y >= PICKED {
            bound += 2u * step;
            above = counts.z;
        } else if counts.x >= PICKED {
            bound += step;
            above = counts.y;
        } else {
            above = counts.x;
        }
    }
    // Of those whose key is the bound the first are picked, as many as are missing: up to this place.
    let missing = PICKED - above;
    var last = 0u;
    for (var bits = 0u; bits < PLACE_BITS; bits += 2u) {
        let step = 1u << (PLACE_BITS - 2u - bits);
        var a = vec4<u32>();
        var b = vec4<u32>();
        var c = vec4<u32>();
        for (var k = lane; k < end; k += LANES) {
            let same = ones(keys(row, k) == vec4<u32>(bound));
            let place = vec4<u32>(k * 4u) + FOUR;
            a += select(vec4<u32>(), same, place < vec4<u32>(last + step));
            b += select(vec4<u32>(), same, place < vec4<u32>(last + 2u * step));
            c += select(vec4<u32>(), same, place < vec4<u32>(last + 3u * step));
        }
        let counts = all_sum(vec3<u32>(sum(a), sum(b), sum(c)), lane);
        last += step * sum(ones(vec4<u32>(counts, missing) < vec4<u32>(missing)));
    }
    workgroupBarrier();
    for (var k = lane; k < end; k += LANES) {
        let x = keys(row, k);
        let place = vec4<u32>(k * 4u) + FOUR;
        let hit = select(x > vec4<u32>(bound), place <= vec4<u32>(last), x == vec4<u32>(bound));
        if any(hit) {
            for (var i = 0u; i < 4u; i++) {
                if hit[i] {
                    let at = atomicAdd(&taken, 1u);
                    picked[at] = x[i];
                    places[at] = place[i];
                }
            }
        }
    }
    workgroupBarrier();
    for (var i = lane; i < PICKED + more; i += LANES) {
        let key = picked[i];
        let place = places[i];
        var rank = 0u;
        for (var j = 0u; j < PICKED + more; j++) {
            let other = picked[j];
            if other > key || (other == key && places[j] < place) {
                rank++;
            }
        }
        store(row, rank, i32(place));
    }
}
