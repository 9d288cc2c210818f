//! A folder of what may be lost: measured choices of kernels, passed self-tests, compiled pipelines.
//!
//! `SELVEDGE_CACHE` names it (empty: none); without it the platform's folder for such things is used. Everything in it is
//! specific to an adapter and its driver, and checked when it is read. Files are written beside and renamed.

use crate::gpu::Gpu;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable that names the folder.
pub const VARIABLE: &str = "SELVEDGE_CACHE";

/// The folder; `None` if there is to be none, or the system does not say where.
pub fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if std::env::var_os(VARIABLE).is_some() {
        return set(VARIABLE);
    }
    if cfg!(windows) {
        return Some(set("LOCALAPPDATA")?.join("selvedge").join("cache"));
    }
    if cfg!(target_os = "macos") {
        return Some(set("HOME")?.join("Library/Caches/selvedge"));
    }
    let cache = set("XDG_CACHE_HOME").filter(|p| p.is_absolute());
    Some(cache.or_else(|| Some(set("HOME")?.join(".cache")))?.join("selvedge"))
}

/// What of the cache belongs to an adapter with its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCache {
    folder: Option<PathBuf>,
    key: String,
}

impl DeviceCache {
    /// The part of the cache for an adapter.
    pub fn of(gpu: &Gpu) -> DeviceCache {
        let facts = gpu.facts();
        let key = [facts.name.as_str(), &facts.backend, &facts.driver].join("\n");
        DeviceCache { folder: folder(), key: selvedge_bundle::hash(key.as_bytes())[..16].to_string() }
    }
    /// In another folder than the user's.
    pub fn within(mut self, folder: PathBuf) -> DeviceCache {
        self.folder = Some(folder);
        self
    }
    fn path(&self, what: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{what}-{}", self.key)))
    }
    /// The bytes of a file, if there are any.
    pub fn read(&self, what: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(what)?).ok()
    }
    /// Replaces a file. A cache that cannot be written is none: what it would save is done again.
    pub fn write(&self, what: &str, bytes: &[u8]) {
        static WRITES: AtomicU32 = AtomicU32::new(0);
        let Some(path) = self.path(what) else { return };
        let unique = format!("{what}-{}.{}.{}", self.key, std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let beside = path.with_file_name(unique);
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written =
            folder.and_then(|()| std::fs::write(&beside, bytes)).and_then(|()| std::fs::rename(&beside, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside); // it may not be there
        }
    }
}
