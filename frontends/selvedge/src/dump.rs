//! Every stage as text: `01-input.ir`, `02-….ir`, the plan and the kernels.

use crate::error::Error;
use selvedge_ir::Diagnostic;
use std::path::{Path, PathBuf};

/// Writes numbered files into a folder, or nothing.
pub struct Dump {
    folder: Option<PathBuf>,
    count: usize,
}

impl Dump {
    /// A dump into a folder (made if it is not there); `None` writes nothing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: Option<&Path>) -> Result<Dump, Error> {
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|e| fail(folder, e))?;
        }
        Ok(Dump { folder: folder.map(Path::to_path_buf), count: 0 })
    }
    /// Writes the next stage; the text is made only if it is wanted.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn stage(&mut self, name: &str, text: impl FnOnce() -> String) -> Result<(), Error> {
        self.count += 1;
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.join(format!("{:02}-{name}", self.count));
        std::fs::write(&path, text()).map_err(|e| fail(&path, e))
    }
    /// Writes the kernels' texts under `kernels/`, by number and name.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn kernels<'k>(&self, kernels: impl Iterator<Item = (&'k str, &'k str)>) -> Result<(), Error> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let folder = folder.join("kernels");
        std::fs::create_dir_all(&folder).map_err(|e| fail(&folder, e))?;
        for (i, (name, text)) in kernels.enumerate() {
            let plain: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
            let path = folder.join(format!("{i:03}-{plain}.wgsl"));
            std::fs::write(&path, text).map_err(|e| fail(&path, e))?;
        }
        Ok(())
    }
}

fn fail(path: &Path, e: std::io::Error) -> Error {
    Diagnostic::new("dump", format!("cannot write `{}`: {e}", path.display()))
        .help("choose another folder with --dump")
        .into()
}
