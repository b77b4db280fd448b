//! Files and folders of Sigma rules, read by several threads.

use rules::sigma::{Collection, Options, Reader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reads files, and `*.yml`/`*.yaml` below folders in the order of their names. What cannot be read is
/// a problem like any other.
pub fn read(paths: &[PathBuf], options: &Options) -> Collection {
    reader(paths, options).finish()
}

/// The same, for whoever has more to read.
pub fn reader(paths: &[PathBuf], options: &Options) -> Reader {
    let mut files = Vec::new();
    let mut unreadable = Vec::new();
    for path in paths {
        walk(path, true, &mut files, &mut unreadable);
    }
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(8).min(files.len().div_ceil(32)).max(1);
    let next = AtomicUsize::new(0);
    // Blocks of neighbouring files, so that the order of the files stays.
    let size = files.len().div_ceil(threads * 4).max(1);
    let blocks: Vec<&[PathBuf]> = files.chunks(size).collect();
    let mut read: Vec<(usize, Reader)> = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                let Some(files) = blocks.get(block) else { return done };
                done.push((block, read_block(files, options)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    read.sort_by_key(|(block, _)| *block);
    let mut all = Reader::new(options.clone());
    unreadable.into_iter().for_each(|(name, why)| all.unreadable(&name, &why));
    read.into_iter().for_each(|(_, reader)| all.append(reader));
    all
}

/// Reads texts that somebody has already; each with the name of its file.
pub fn read_texts(texts: &[(String, String)], options: &Options) -> Collection {
    let mut reader = Reader::new(options.clone());
    texts.iter().for_each(|(name, text)| reader.text(name, text));
    reader.finish()
}

fn read_block(files: &[PathBuf], options: &Options) -> Reader {
    let mut reader = Reader::new(options.clone());
    for file in files {
        let name = file.display().to_string();
        match std::fs::read_to_string(file) {
            Ok(text) => reader.text(&name, &text),
            Err(error) => reader.unreadable(&name, &error.to_string()),
        }
    }
    reader
}

fn walk(path: &Path, named: bool, files: &mut Vec<PathBuf>, unreadable: &mut Vec<(String, String)>) {
    if path.is_dir() {
        match std::fs::read_dir(path) {
            Ok(entries) => {
                let mut below: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
                below.sort();
                below.iter().for_each(|path| walk(path, false, files, unreadable));
            }
            Err(error) => unreadable.push((path.display().to_string(), error.to_string())),
        }
        return;
    }
    if named && let Err(error) = std::fs::metadata(path) {
        unreadable.push((path.display().to_string(), error.to_string()));
        return;
    }
    if named || path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
        files.push(path.to_owned());
    }
}
