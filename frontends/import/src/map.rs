//! Read-only memory maps of files.

// Mapping is `unsafe` because another process may shorten or rewrite the file while it is mapped: reads then see other bytes or
// raise a signal. Checkpoints and bundles are tens of gigabytes, so copying them is not an alternative; we map them
// read-only, check every offset against the length at the time of mapping, and treat the bytes as data only.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file, mapped read-only; dereferences to a slice.
#[derive(Debug)]
pub struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    /// The file cannot be opened, or is no regular file.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if facts.len() == 0 {
            return Ok(MappedFile { map: None });
        }
        // SAFETY: the map is read-only and never handed out as mutable; see the note at the top on concurrent changes.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(MappedFile { map: Some(map) })
    }
}

impl MappedFile {
    /// Lets the system have the memory of pages that were read; they are read again when they are wanted.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // SAFETY: the map is read-only and shared with the file, so a dropped page comes back as it was.
            // It is advice: where it is not taken, nothing is lost but memory.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
