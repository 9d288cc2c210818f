// Normalisation of rows: mean and variance (CENTRED) or mean square in one pass over the row, results in another.
// A row may be cut into CHUNKS whose figures one dispatch keeps (PHASE 1) and the next one joins and applies (PHASE 2).
// Constants: ROWS rows of LEN elements in QUADS fours; CHUNKS of CHUNK_QUADS; LANES invocations a chunk; ROLLED; CENTRED, EPS, PHASE;
// WG, GROUPS_X. Generated: all_sum(x, lane) over a chunk's lanes.
// Hooks: load(row, quad), store(row, quad, value), keep(row, chunk, mean, squares), kept(row, chunk).

// Elements of a chunk.
fn count_of(chunk: u32) -> f32 {
    return f32(min((chunk + 1u) * CHUNK_QUADS * 4u, LEN) - chunk * CHUNK_QUADS * 4u);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.y * GROUPS_X + group.x) * WG + lane;
    let inside = place / LANES < ROWS * CHUNKS;
    let part = min(place / LANES, ROWS * CHUNKS - 1u);
    let row = part / CHUNKS;
    let chunk = part % CHUNKS;
    let first = chunk * CHUNK_QUADS + place % LANES;
    // Nothing, which compilers do not know: they cannot unroll what is ROLLED.
    let more = select(0u, group.z, ROLLED);
    let end = min((chunk + 1u) * CHUNK_QUADS, QUADS) + more;
    var mean = 0.0f;
    var squares = 0.0f;
    if PHASE < 2u {
        // Welford's running mean and sum of squared distances, four streams a lane.
        var centre = vec4<f32>();
        var around = vec4<f32>();
        var count = 0.0f;
        for (var k = first; k < min(end, LEN / 4u + more); k += LANES) {
            let x = load(row, k);
            count += 1.0f;
            if CENTRED {
                let d = x - centre;
                centre += d * (1.0f / count);
                around += d * (x - centre);
            } else {
                around += x * x;
            }
        }
        var own = (centre.x + centre.y + centre.z + centre.w) * 0.25f;
        let apart = centre - own;
        let spread = around + count * apart * apart;
        var own_squares = (spread.x + spread.y) + (spread.z + spread.w);
        count *= 4.0f;
        // The row's last elements, where they are not four.
        if LEN % 4u > 0u && end == QUADS && (QUADS - 1u) % LANES == first % LANES {
            let x = load(row, QUADS - 1u);
            for (var i = 0u; i < LEN % 4u; i++) {
                count += 1.0f;
                if CENTRED {
                    let d = x[i] - own;
                    own += d / count;
                    own_squares += d * (x[i] - own);
                } else {
                    own_squares += x[i] * x[i];
                }
            }
        }
        if CENTRED {
            mean = all_sum(count * own, lane) / count_of(chunk);
            own_squares += count * (own - mean) * (own - mean);
        }
        squares = all_sum(own_squares, lane);
    }
    if PHASE == 1u {
        if inside && place % LANES == 0u {
            keep(row, chunk, mean, squares);
        }
        return;
    }
    if PHASE == 2u {
        for (var c = 0u; c < CHUNKS; c++) {
            mean += kept(row, c).x * (count_of(c) / f32(LEN));
        }
        for (var c = 0u; c < CHUNKS; c++) {
            let figures = kept(row, c);
            squares += figures.y + count_of(c) * (figures.x - mean) * (figures.x - mean);
        }
    }
    let factor = inverseSqrt(squares / f32(LEN) + EPS);
    for (var k = first; k < end; k += LANES) {
        if inside {
            store(row, k, (load(row, k) - mean) * factor);
        }
    }
}
