//! Hooks that do nothing, for validation of generated constants and functions.

/// The hooks of a family's stubs file, without its constants and generated functions.
pub fn of_stubs(stubs: &str, generated: &[&str]) -> String {
    let mut out = String::new();
    let mut skip = false;
    for line in stubs.lines() {
        if line.starts_with("const ")
            || line.starts_with("alias ")
            || line.starts_with("enable ")
            || line.starts_with("struct ")
            || line.starts_with("//")
        {
            continue;
        }
        if let Some(signature) = line.strip_prefix("fn ") {
            let name = signature.split('(').next().expect("splitting gives a first part");
            skip = generated.contains(&name);
        }
        if !skip {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
