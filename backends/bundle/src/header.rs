//! The safetensors header: parsing that trusts nothing, and writing in a fixed order.

use crate::error::{BundleError, Flaw};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Largest header that readers of safetensors accept, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Description of a tensor as the file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Info {
    pub dtype: String,
    pub shape: Vec<u64>,
    pub data_offsets: [u64; 2],
}

/// A header: metadata and tensors in the order of their bytes.
#[derive(Debug)]
pub(crate) struct Header {
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<(String, Info)>,
}

/// Splits a file into header and body. The tensors' offsets are still to be [checked](check_offsets).
pub(crate) fn parse(bytes: &[u8]) -> Result<(Header, &[u8]), BundleError> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(BundleError::NotABundle(format!("{} bytes are too few for a safetensors file", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
        let problem =
            format!("its header claims {length} bytes and {} follow; truncated or no safetensors file", rest.len());
        return Err(BundleError::NotABundle(problem));
    }
    let (head, body) = rest.split_at(length as usize);
    let text = std::str::from_utf8(head).map_err(|e| BundleError::NotABundle(format!("its header is no text: {e}")))?;
    // The padding is spaces: nothing else would be seen by the checksum.
    let text = text.trim_end_matches(' ');
    let raw: RawHeader =
        serde_json::from_str(text).map_err(|e| BundleError::NotABundle(format!("its header is malformed: {e}")))?;
    if !text.ends_with('}') {
        return Err(BundleError::NotABundle("its header is padded with something else than spaces".to_string()));
    }
    let mut header = Header { metadata: raw.metadata, tensors: raw.tensors };
    header.tensors.sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
    Ok((header, body))
}

/// Checks the tensors against a body of that many bytes: no gap, no overlap, nothing left, sizes that fit the shapes.
pub(crate) fn check_offsets(tensors: &[(String, Info)], body: u64) -> Result<(), Flaw> {
    let mut end = 0;
    for (name, info) in tensors {
        let place = || format!("tensor `{name}`");
        let [begin, stop] = info.data_offsets;
        if begin != end || stop < begin || stop > body {
            let problem = format!("bytes {begin} to {stop} where the last tensor ends at {end} and the file at {body}");
            return Err(Flaw::new(place(), problem));
        }
        let Some(element) = dtype_bytes(&info.dtype) else {
            return Err(Flaw::new(place(), format!("unknown dtype {}", info.dtype)));
        };
        let bytes = crate::dtype::elements(&info.shape).and_then(|n| n.checked_mul(element));
        if bytes != Some(stop - begin) {
            let problem = format!("{} of shape {:?} in {} bytes", info.dtype, info.shape, stop - begin);
            return Err(Flaw::new(place(), problem));
        }
        if !begin.is_multiple_of(element) {
            return Err(Flaw::new(place(), format!("byte {begin} is not aligned for {}", info.dtype)));
        }
        end = stop;
    }
    if end != body {
        return Err(Flaw::new("file", format!("the tensors end at byte {end} of {body}")));
    }
    Ok(())
}

/// Bytes of an element of the dtypes that bundles use.
fn dtype_bytes(dtype: &str) -> Option<u64> {
    match dtype {
        "F32" | "I32" | "U32" => Some(4),
        "F16" | "BF16" => Some(2),
        "U8" => Some(1),
        _ => None,
    }
}

/// Length prefix and header, padded so that the body starts at a multiple of 8.
pub(crate) fn render(header: &Header) -> Result<Vec<u8>, Flaw> {
    let mut text = String::from("{\"__metadata__\":");
    text.push_str(&to_json(&header.metadata));
    for (name, info) in &header.tensors {
        text.push(',');
        text.push_str(&to_json(name));
        text.push(':');
        text.push_str(&to_json(info));
    }
    text.push('}');
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    if text.len() as u64 > MAX_HEADER {
        return Err(Flaw::new("header", format!("{} bytes where safetensors allows {MAX_HEADER}", text.len())));
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    Ok(bytes)
}

/// JSON of a value that always has some.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("strings, numbers and string-keyed maps have a JSON form")
}

/// JSON without white space, keys sorted whatever serde_json was built with.
pub(crate) fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let items: Vec<String> = sorted.iter().map(|(k, v)| format!("{}:{}", to_json(k), canonical(v))).collect();
            format!("{{{}}}", items.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => to_json(value),
    }
}

/// The header's JSON object; a name that is there twice is an error.
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Info)>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawHeader, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a safetensors header")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut metadata = None;
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if metadata.replace(map.next_value::<Unique>()?.0).is_some() {
                            return Err(A::Error::custom("`__metadata__` is there twice"));
                        }
                    } else {
                        let info: Info = map.next_value()?;
                        if let Some(_first) = tensors.insert(name.clone(), info) {
                            return Err(A::Error::custom(format!("tensor `{name}` is there twice")));
                        }
                    }
                }
                Ok(RawHeader { metadata: metadata.unwrap_or_default(), tensors: tensors.into_iter().collect() })
            }
        }
        deserializer.deserialize_map(Top)
    }
}

/// A string-to-string map without duplicates.
struct Unique(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Unique;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from strings to strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if pairs.contains_key(&key) {
                        return Err(A::Error::custom(format!("`{key}` is there twice")));
                    }
                    pairs.insert(key, value);
                }
                Ok(Unique(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
