//! The files that a report goes to: opened before the run, so that what is wrong with them is told then, and written at
//! its end. Until then an old report stays.

use super::options::BenchOptions;
use super::report::Report;
use super::{hdr, html};
use crate::failure::Failure;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The files that were asked for.
pub(crate) struct Outputs {
    json: Option<(File, PathBuf)>,
    html: Option<(File, PathBuf)>,
    histograms: Option<PathBuf>,
    /// Drawn when the last phase has ended.
    pub(crate) flamegraph: Option<(File, PathBuf)>,
}

impl Outputs {
    /// Opens what the options ask for.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`], naming what cannot be written.
    pub(crate) fn open(options: &BenchOptions) -> Result<Self, Failure> {
        let cannot = |path: &Path, error| Failure::input(format!("cannot write {}: {error}", path.display()));
        let file = |path: &Option<PathBuf>| -> Result<Option<(File, PathBuf)>, Failure> {
            let Some(path) = path else { return Ok(None) };
            let file = File::options().write(true).create(true).truncate(false).open(path);
            Ok(Some((file.map_err(|error| cannot(path, error))?, path.clone())))
        };
        let outputs = Outputs {
            json: file(&options.json)?,
            html: file(&options.html)?,
            histograms: options.histograms.clone(),
            flamegraph: file(&options.flamegraph)?,
        };
        if let Some(folder) = &outputs.histograms {
            fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
        }
        Ok(outputs)
    }

    /// Writes the report, of which `text` is what was printed.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`], naming what could not be written.
    pub(crate) fn write(self, report: &Report, text: &str) -> Result<(), Failure> {
        if let Some(json) = self.json {
            let mut bytes = serde_json::to_vec_pretty(report).map_err(Failure::run)?;
            bytes.push(b'\n');
            replace(json, &bytes)?;
        }
        if let Some(page) = self.html {
            replace(page, html::page(report, text).as_bytes())?;
        }
        if let Some(folder) = self.histograms {
            hdr::write_all(&folder, report)
                .map_err(|error| Failure::run(format!("cannot write {}: {error}", folder.display())))?;
        }
        Ok(())
    }
}

fn replace((mut file, path): (File, PathBuf), bytes: &[u8]) -> Result<(), Failure> {
    let written = file.set_len(0).and_then(|()| file.write_all(bytes));
    written.map_err(|error| Failure::run(format!("cannot write {}: {error}", path.display())))
}
