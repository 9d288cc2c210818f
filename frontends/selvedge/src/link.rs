//! Weights left in their checkpoint (`--link-weights`): naming their places, and reading them again.

use selvedge_bundle::Bundle;
use selvedge_bundle::manifest::{Link, Manifest};
use selvedge_import::MappedFile;
use selvedge_import::storage::Location;
use selvedge_ir::Diagnostic;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A link to a tensor's place, for a bundle in `folder`: relative if the file is in that folder or below, else absolute,
/// so that a bundle moves together with a checkpoint that lies beside it.
///
/// # Errors
/// A folder that is not there; a path that is not UTF-8.
pub fn link(location: &Location<'_>, folder: &Path) -> Result<Link, Diagnostic> {
    let (file, shown) = (location.file, location.file.display());
    let absolute = |folder: &Path| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let cannot = |e| Diagnostic::new("link", format!("cannot find the folder `{}`: {e}", folder.display()));
        folder.canonicalize().map_err(cannot)
    };
    let whole = absolute(file.parent().unwrap_or(file))?.join(file.file_name().unwrap_or_default());
    let names: Option<Vec<&str>> = match whole.strip_prefix(absolute(folder)?) {
        Ok(below) => below.iter().map(|name| name.to_str()).collect(),
        Err(_) => whole.to_str().map(|path| vec![path]),
    };
    let names = names.ok_or_else(|| Diagnostic::new("link", format!("the path of `{shown}` is not UTF-8")))?;
    Ok(Link { file: names.join("/"), offset: location.offset, bytes: location.bytes })
}

/// The files that a bundle's links name, mapped.
#[derive(Debug, Default)]
pub struct LinkedFiles {
    /// By the name in the links: where, and the bytes.
    files: BTreeMap<String, (PathBuf, MappedFile)>,
}

impl LinkedFiles {
    /// Maps the files that the links of a bundle in `folder` name.
    ///
    /// # Errors
    /// A file that is missing or cannot be read.
    pub fn open(manifest: &Manifest, folder: &Path) -> Result<LinkedFiles, Diagnostic> {
        let mut files = BTreeMap::new();
        for link in manifest.weights.iter().filter_map(|w| w.link.as_ref()) {
            if !files.contains_key(&link.file) {
                let path = folder.join(&link.file);
                let map = MappedFile::open(&path).map_err(|e| {
                    Diagnostic::new("link", format!("cannot read the linked weights in `{}`: {e}", path.display()))
                        .help("put the checkpoint back in its place, or compile again")
                })?;
                files.insert(link.file.clone(), (path, map));
            }
        }
        Ok(LinkedFiles { files })
    }
    /// Paths of the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.values().map(|(path, _)| path.as_path())
    }
    /// The bytes at a link, unchecked.
    ///
    /// # Errors
    /// A link to another file than those that were opened, or beyond its end.
    pub fn bytes(&self, link: &Link) -> Result<&[u8], Diagnostic> {
        let (path, map) = self
            .files
            .get(&link.file)
            .ok_or_else(|| Diagnostic::new("link", format!("the linked file `{}` is not open", link.file)))?;
        let range = usize::try_from(link.offset).ok().zip(usize::try_from(link.offset + link.bytes).ok());
        range.and_then(|(from, to)| map.get(from..to)).ok_or_else(|| {
            changed(path).expected_found(
                format!("{} bytes or more", link.offset.saturating_add(link.bytes)),
                format!("{} bytes", map.len()),
            )
        })
    }
    /// The bytes of a bundle's weight (by its index) at its link; they have the weight's hash.
    ///
    /// # Errors
    /// As [`LinkedFiles::bytes`]; bytes that were changed.
    pub fn checked(&self, bundle: &Bundle<'_>, index: usize, link: &Link) -> Result<&[u8], Diagnostic> {
        let bytes = self.bytes(link)?;
        match (bundle.check_weight(index, bytes), self.files.get(&link.file)) {
            (Err(e), Some((path, _))) => Err(changed(path).expected_found("the bytes that were linked", e)),
            (Ok(()), _) | (Err(_), None) => Ok(bytes), // `bytes` found the file
        }
    }
}

fn changed(path: &Path) -> Diagnostic {
    Diagnostic::new("link", format!("`{}` is not the file that was linked: it was changed or replaced", path.display()))
        .help("put the original checkpoint back, or compile again")
}
