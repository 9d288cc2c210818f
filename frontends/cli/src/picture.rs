//! Pictures: a grid of images as a PNG file, written all or not at all.

use selvedge::sample::Images;
use selvedge::{Diagnostic, Error};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// An 8-bit picture.
#[derive(Debug, PartialEq)]
pub struct Picture {
    /// Columns of pixels.
    pub width: usize,
    /// Rows of pixels.
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
    /// Interleaved bytes, row-major.
    pub bytes: Vec<u8>,
}

/// Lays images out in a near-square grid without margins (16 in 4 × 4, 5 in 3 × 2); empty places are black.
pub fn grid(images: &Images) -> Picture {
    let [channels, rows_each, columns_each] = images.shape;
    let columns = (1..).find(|c| c * c >= images.count).expect("a square root exists");
    let rows = images.count.div_ceil(columns);
    let (width, height) = (columns * columns_each, rows * rows_each);
    let mut bytes = vec![0u8; width * height * channels];
    let [black, white] = images.range;
    for (i, value) in images.values.iter().enumerate() {
        let (x, rest) = (i % columns_each, i / columns_each);
        let (y, rest) = (rest % rows_each, rest / rows_each);
        let (channel, image) = (rest % channels, rest / channels);
        let (left, top) = ((image % columns) * columns_each, (image / columns) * rows_each);
        let level = ((value - black) / (white - black)).clamp(0.0, 1.0);
        bytes[((top + y) * width + left + x) * channels + channel] = (level * 255.0).round() as u8;
    }
    Picture { width, height, channels, bytes }
}

/// A file that will be written at the end: its folder is checked now.
pub struct Output {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl Output {
    /// Opens a temporary file beside `path`.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written to; `path` is a folder.
    pub fn new(path: &Path) -> Result<Output, Error> {
        let fail = |message: String, help: &str| Error::from(Diagnostic::new("output", message).help(help));
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() {
            return Err(fail(format!("`{}` is a folder", path.display()), "name a file in it"));
        }
        if !folder.is_dir() {
            let message =
                format!("cannot write `{}`: the folder `{}` does not exist", path.display(), folder.display());
            return Err(fail(message, "create the folder or choose another with -o"));
        }
        let file = tempfile::Builder::new().prefix(".selvedge-").tempfile_in(folder).map_err(|e| {
            let message =
                format!("cannot write `{}`: the folder `{}` is not writable ({e})", path.display(), folder.display());
            fail(message, "choose a folder you may write to with -o")
        })?;
        Ok(Output { path: path.to_path_buf(), file })
    }
    /// Replaces the file by these bytes.
    ///
    /// # Errors
    /// Writing or renaming failed; a file that was there before is still there.
    pub fn write(self, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.display().to_string();
        let fail = |e: std::io::Error| Error::input("output", format!("cannot write `{path}`: {e}"));
        self.fill(|file| file.write_all(bytes).map_err(fail))
    }
    /// Replaces the file by what `content` writes.
    ///
    /// # Errors
    /// As [`Output::write`]; what `content` says.
    pub fn fill<T>(
        mut self,
        content: impl FnOnce(&mut BufWriter<&mut std::fs::File>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let path = self.path.display().to_string();
        let fail = |e: std::io::Error| Error::input("output", format!("cannot write `{path}`: {e}"));
        let mut out = BufWriter::with_capacity(1 << 20, self.file.as_file_mut());
        let value = content(&mut out)?;
        out.flush().map_err(fail)?;
        drop(out);
        #[cfg(unix)]
        {
            // A temporary file is private; the result has the mode that a new file would have.
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&self.path).map_or(0o644, |m| m.permissions().mode());
            self.file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(fail)?;
        }
        self.file.persist(&self.path).map_err(|e| fail(e.error))?;
        Ok(value)
    }
}

/// The picture as a PNG file's bytes.
///
/// # Errors
/// The encoder refuses (a picture of no pixels).
pub fn png(picture: &Picture) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width as u32, picture.height as u32);
    encoder.set_color(if picture.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    let fail = |e: png::EncodingError| Error::input("output", format!("cannot encode the picture: {e}"));
    let mut writer = encoder.write_header().map_err(fail)?;
    writer.write_image_data(&picture.bytes).map_err(fail)?;
    writer.finish().map_err(fail)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_fill_a_near_square_grid() {
        let values: Vec<f32> = (0..5).flat_map(|i| vec![i as f32 / 4.0 * 2.0 - 1.0; 6]).collect();
        let images = Images { count: 5, shape: [1, 2, 3], range: [-1.0, 1.0], values };
        let picture = grid(&images);
        assert_eq!((picture.width, picture.height), (9, 4));
        assert_eq!(&picture.bytes[..9], &[0, 0, 0, 64, 64, 64, 128, 128, 128]);
        assert_eq!(&picture.bytes[18..27], &[191, 191, 191, 255, 255, 255, 0, 0, 0]);
    }

    #[test]
    fn colours_are_interleaved_and_clamped() {
        let images = Images { count: 1, shape: [3, 1, 1], range: [0.0, 1.0], values: vec![2.0, -2.0, 0.5] };
        assert_eq!(grid(&images).bytes, vec![255, 0, 128]);
    }

    #[test]
    fn an_output_appears_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.png");
        let output = Output::new(&path).expect("the folder is there");
        assert!(!path.exists());
        output.write(b"x").expect("writable");
        assert_eq!(std::fs::read(&path).expect("it was written"), b"x");
        assert!(Output::new(&folder.path().join("no/a.png")).is_err());
        assert!(Output::new(folder.path()).is_err());
    }
}
