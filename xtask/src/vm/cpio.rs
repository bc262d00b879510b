//! Writes the archive format of an initramfs ("newc", Documentation/driver-api/early-userspace/buffer-format.rst
//! in the kernel's sources).

use std::collections::BTreeSet;
use std::path::{Component, Path};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive as it grows. Paths are as in the running system; their directories come by themselves.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    present: BTreeSet<String>,
}

impl Archive {
    /// A directory and those above it.
    pub fn directory(&mut self, path: &str) {
        let mut above = String::new();
        for component in Path::new(path).components() {
            if let Component::Normal(name) = component {
                if !above.is_empty() {
                    above.push('/');
                }
                above.push_str(&name.to_string_lossy());
                self.entry(&above.clone(), DIRECTORY, (0, 0), &[]);
            }
        }
    }

    /// A file, executable: everything in here is a program, a library or a module.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.within(path, EXECUTABLE, (0, 0), content);
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.within(path, SYMLINK, (0, 0), target.as_bytes());
    }

    /// A character device: without `/dev/console`, the first process has no standard output.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.within(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// The archive, ended.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn within(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let path = path.trim_start_matches('/');
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
        self.entry(path, mode, device, content);
    }

    /// The first entry of a name counts.
    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        if !self.present.insert(name.to_owned()) {
            return;
        }
        let inode = self.present.len();
        self.bytes.extend_from_slice(b"070701");
        let links = 1;
        let (size, name_size) = (content.len(), name.len() + 1);
        for field in
            [inode, mode as usize, 0, 0, links, 0, size, 0, 0, major as usize, minor as usize, name_size, 0]
        {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_aligned_and_name_their_directories_once() {
        let mut archive = Archive::default();
        archive.file("/usr/bin/a", b"12345");
        archive.file("/usr/bin/b", b"");
        archive.symlink("/usr/b", "bin");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let names: Vec<String> = names(&bytes);
        assert_eq!(names, ["usr", "usr/bin", "usr/bin/a", "usr/bin/b", "usr/b", "TRAILER!!!"]);
    }

    /// Reads the archive back as the kernel does: header of 110 bytes, name, content, each padded to four.
    fn names(mut bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).expect("digits");
                usize::from_str_radix(text, 16).expect("a number")
            };
            let (size, name_size) = (field(6), field(11));
            names.push(String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).expect("a name"));
            bytes = &bytes[(110 + name_size).next_multiple_of(4) + size.next_multiple_of(4)..];
        }
        names
    }
}
