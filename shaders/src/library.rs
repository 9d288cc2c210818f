//! The shared WGSL functions (`wgsl/lib`), taken one by one as shaders name them.

const FILES: [&str; 2] = [include_str!("../wgsl/lib/math.wgsl"), include_str!("../wgsl/lib/memory.wgsl")];

/// Name and text of every library function, in file order.
///
/// In the files a blank line separates functions, and each chunk holds one.
pub fn functions() -> Vec<(&'static str, &'static str)> {
    let chunks = FILES.iter().flat_map(|file| file.split("\n\n"));
    chunks.filter_map(|chunk| Some((name(chunk)?, chunk))).collect()
}

fn name(chunk: &str) -> Option<&str> {
    let line = chunk.lines().find(|line| line.starts_with("fn "))?;
    line[3..].split('(').next()
}

/// The texts of the functions that the parts name, and of those that these name in turn.
pub(crate) fn used(parts: &[&str]) -> Vec<&'static str> {
    let all = functions();
    let mut taken = vec![false; all.len()];
    let mut queue: Vec<&str> = parts.to_vec();
    while let Some(text) = queue.pop() {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if let Some(i) = all.iter().position(|(name, _)| *name == word)
                && !taken[i]
            {
                taken[i] = true;
                queue.push(all[i].1);
            }
        }
    }
    all.iter().zip(taken).filter(|(_, taken)| *taken).map(|((_, text), _)| *text).collect()
}
