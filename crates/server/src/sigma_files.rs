//! Files and folders of Sigma rules, read by several threads.

use crate::rule_files::yaml_files;
use rules::sigma::{Collection, Options, Reader};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reads files, and `*.yml`/`*.yaml` below folders in the order of their names. What cannot be read is
/// a problem like any other.
pub fn read(paths: &[PathBuf], options: &Options) -> Collection {
    all(paths, options, Texts::Dropped).0.finish()
}

/// The same, for whoever has more to read; with the texts, each with the name of its file.
pub fn reader(paths: &[PathBuf], options: &Options) -> (Reader, Vec<(String, String)>) {
    all(paths, options, Texts::Kept)
}

/// What was read of some files, and the texts that are kept, each with the name of its file.
type Read = (Reader, Vec<(String, String)>);

/// What becomes of a text that was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Texts {
    Kept,
    Dropped,
}

fn all(paths: &[PathBuf], options: &Options, texts: Texts) -> Read {
    let (files, unreadable) = yaml_files(paths);
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(8).min(files.len().div_ceil(32)).max(1);
    let next = AtomicUsize::new(0);
    // Blocks of neighbouring files, so that the order of the files stays.
    let size = files.len().div_ceil(threads * 4).max(1);
    let blocks: Vec<&[PathBuf]> = files.chunks(size).collect();
    let mut read: Vec<(usize, Read)> = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                let Some(files) = blocks.get(block) else { return done };
                done.push((block, read_block(files, options, texts)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    read.sort_by_key(|(block, _)| *block);
    let mut all = Reader::new(options.clone());
    unreadable.into_iter().for_each(|(name, why)| all.unreadable(&name, &why));
    let mut kept = Vec::new();
    for (_, (reader, texts)) in read {
        all.append(reader);
        kept.extend(texts);
    }
    (all, kept)
}

/// Reads texts that somebody has already; each with the name of its file.
pub fn read_texts(texts: &[(String, String)], options: &Options) -> Collection {
    let mut reader = Reader::new(options.clone());
    texts.iter().for_each(|(name, text)| reader.text(name, text));
    reader.finish()
}

fn read_block(files: &[PathBuf], options: &Options, texts: Texts) -> Read {
    let mut reader = Reader::new(options.clone());
    let mut kept = Vec::new();
    for file in files {
        let name = file.display().to_string();
        match std::fs::read_to_string(file) {
            Ok(text) => {
                reader.text(&name, &text);
                if texts == Texts::Kept {
                    kept.push((name, text));
                }
            }
            Err(error) => reader.unreadable(&name, &error.to_string()),
        }
    }
    (reader, kept)
}
