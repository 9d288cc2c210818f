//! Damaged files: always an error, never a panic, never another bundle.

mod common;

use common::*;
use selvedge_bundle::manifest::FORMAT;
use selvedge_bundle::{Bundle, BundleError, read};

/// Reads everything that a run would use.
fn read_all(bytes: &[u8]) -> Result<Bundle<'_>, BundleError> {
    let bundle = read(bytes)?;
    bundle.check_weights()?;
    Ok(bundle)
}

fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// The sample with its header's text edited; the length prefix is right again.
fn edited(edit: impl Fn(&str) -> String) -> Vec<u8> {
    let bytes = sample().to_bytes().unwrap();
    let end = 8 + header_length(&bytes);
    let header = edit(std::str::from_utf8(&bytes[8..end]).unwrap());
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&bytes[end..]);
    out
}

fn refusal(bytes: &[u8]) -> String {
    read_all(bytes).expect_err("damaged").to_string()
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample().to_bytes().unwrap();
    for length in 0..bytes.len() {
        assert!(read_all(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(refusal(&longer).contains("the tensors end at"));
}

#[test]
fn every_changed_byte_is_an_error() {
    let bytes = sample().to_bytes().unwrap();
    for place in 0..bytes.len() {
        for change in [0x01, 0x20, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= change;
            assert!(read_all(&damaged).is_err(), "byte {place} of {} xor {change:#x}", bytes.len());
        }
    }
}

#[test]
fn two_changes_and_removed_or_doubled_parts_are_errors() {
    let bytes = sample().to_bytes().unwrap();
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        let (a, b) = (random(bytes.len()), random(bytes.len()));
        damaged[a] = damaged[a].wrapping_add(1 + random(255) as u8);
        if b != a {
            damaged[b] = damaged[b].wrapping_add(1 + random(255) as u8);
        }
        assert!(read_all(&damaged).is_err(), "bytes {a} and {b}");
        let (a, b) = (a.min(b), a.max(b));
        if a != b {
            assert!(read_all(&[&bytes[..a], &bytes[b..]].concat()).is_err(), "without {a} to {b}");
            assert!(read_all(&[&bytes[..b], &bytes[a..]].concat()).is_err(), "{a} to {b} twice");
        }
    }
}

#[test]
fn headers_that_lie_are_refused() {
    assert!(refusal(&[]).starts_with("not a bundle: 0 bytes"));
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, 100_000_001] {
        let mut bytes = sample().to_bytes().unwrap();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert!(refusal(&bytes).contains(&format!("claims {length} bytes")));
    }
    let swap = |from: &'static str, to: &'static str| {
        edited(move |header| {
            assert!(header.contains(from), "{header}");
            header.replacen(from, to, 1)
        })
    };
    // f32 comes first: 8 bytes, then three halves.
    assert!(refusal(&swap("[8,14]", "[7,14]")).contains("where the last tensor ends at 8"), "overlap");
    assert!(refusal(&swap("[8,14]", "[9,14]")).contains("where the last tensor ends at 8"), "gap");
    assert!(refusal(&swap("[8,14]", "[8,18446744073709551615]")).contains("and the file at"));
    assert!(refusal(&swap("[8,14]", "[14,8]")).starts_with("corrupt bundle"));
    assert!(refusal(&swap(r#"[2,1],"data"#, r#"[2,9223372036854775808],"data"#)).contains("in 8 bytes"), "overflow");
    assert!(refusal(&swap(r#""F32","#, r#""F99","#)).contains("unknown dtype F99"));
    assert!(refusal(&swap(r#""F32","#, r#""I32","#)).contains("checksum"));
    assert!(refusal(&swap("\"module\":", "\"extra\":")).contains("checksum"));
    let doubled = edited(|header| {
        header.trim_end().trim_end_matches('}').to_string()
            + "},\"module\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}"
    });
    assert!(refusal(&doubled).contains("tensor `module` is there twice"), "{}", refusal(&doubled));
    let deep = edited(|_| "[".repeat(200_000));
    assert!(refusal(&deep).starts_with("not a bundle"));
    assert!(refusal(&edited(|h| h.trim_end().to_string() + "\n")).contains("padded"));
}

#[test]
fn a_checkpoint_is_not_a_bundle() {
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![2], &[1, 2]).unwrap();
    let bytes = safetensors::serialize([("x", view)], None).unwrap();
    assert!(refusal(&bytes).contains("without a manifest"));
    assert!(refusal(b"#!/bin/sh\necho hello world").starts_with("not a bundle"));
}

#[test]
fn a_later_format_says_so() {
    let written = format!(r#""format":"{FORMAT}""#);
    let later = edited(|header| header.replacen(&written, r#""format":"77""#, 1));
    assert_eq!(
        refusal(&later),
        format!("this bundle has format 77, this program reads up to {FORMAT}; update the program or compile again")
    );
    let none = edited(|header| header.replacen(&written, r#""format":"one""#, 1));
    assert!(refusal(&none).contains("no format version"));
}

/// Calls `visit` with the value once for each number in it replaced by each of `numbers`.
fn with_each_number(value: &mut serde_json::Value, numbers: &[u64], visit: &mut dyn FnMut(&serde_json::Value)) {
    fn count(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Number(_) => 1,
            serde_json::Value::Array(items) => items.iter().map(count).sum(),
            serde_json::Value::Object(map) => map.values().map(count).sum(),
            _ => 0,
        }
    }
    fn nth<'v>(value: &'v mut serde_json::Value, n: &mut usize) -> Option<&'v mut serde_json::Value> {
        match value {
            serde_json::Value::Number(_) if *n == 0 => Some(value),
            serde_json::Value::Number(_) => {
                *n -= 1;
                None
            }
            serde_json::Value::Array(items) => items.iter_mut().find_map(|item| nth(item, n)),
            serde_json::Value::Object(map) => map.values_mut().find_map(|item| nth(item, n)),
            _ => None,
        }
    }
    for n in 0..count(value) {
        let original = nth(value, &mut n.clone()).unwrap().clone();
        for number in numbers {
            *nth(value, &mut n.clone()).unwrap() = (*number).into();
            visit(value);
        }
        *nth(value, &mut n.clone()).unwrap() = original;
    }
}

#[test]
fn no_number_in_a_manifest_leads_to_a_panic_or_out_of_bounds() {
    let mut value = serde_json::to_value(manifest()).unwrap();
    let numbers = [0, 1, 3, 255, 256, 257, 1024, 65_536, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX - 255, u64::MAX];
    let (mut accepted, mut refused) = (0, 0);
    with_each_number(&mut value, &numbers, &mut |value| {
        let Ok(manifest) = serde_json::from_value::<selvedge_bundle::manifest::Manifest>(value.clone()) else {
            refused += 1;
            return;
        };
        let Ok(bundle) = bundle_of(manifest) else {
            refused += 1;
            return;
        };
        accepted += 1;
        // Whatever is accepted stays inside its buffers, and survives the file.
        for plan in &bundle.manifest().plans {
            for region in plan.dispatches().flat_map(|d| &d.bindings) {
                let end = region.offset.checked_add(region.bytes).unwrap();
                assert!(end <= plan.buffers[region.buffer as usize].bytes);
            }
        }
        let bytes = bundle.to_bytes().unwrap();
        assert_eq!(read_all(&bytes).unwrap().manifest(), bundle.manifest());
    });
    assert!(accepted > 100 && refused > 300, "{accepted} accepted, {refused} refused");
}
