//! What no operation does, whatever is planted.

use std::os::unix::fs::symlink;

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// A directory `inside` with links in every position, and a directory `outside`.
fn planted() -> Result<(tempfile::TempDir, ConfinedDirectory), Box<dyn std::error::Error>> {
    let root = tempfile::tempdir()?;
    let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
    fs::create_dir_all(inside.join("deep"))?;
    fs::create_dir_all(&outside)?;
    fs::write(outside.join("file"), "outside")?;
    symlink(&outside, inside.join("link"))?;
    symlink("../outside", inside.join("relative"))?;
    symlink(outside.join("file"), inside.join("file"))?;
    symlink("loop", inside.join("loop"))?;
    symlink(&outside, inside.join("deep/link"))?;
    symlink(outside.join("missing"), inside.join("dangling"))?;
    let directory = ConfinedDirectory::open(&inside)?;
    Ok((root, directory))
}

#[test]
fn no_operation_follows_a_link() -> TestResult {
    let (root, directory) = planted()?;
    let paths = ["link/file", "relative/file", "deep/link/file", "loop/file", "../outside/file", "deep/../link/file"];
    for path in paths.map(Path::new) {
        assert!(directory.read(path).is_err(), "{path:?}");
        assert!(directory.write(path, b"x", None, Flush::Now).is_err(), "{path:?}");
        assert!(directory.write_link(path, b"x").is_err(), "{path:?}");
        assert!(directory.append(path, b"x").is_err(), "{path:?}");
        assert!(directory.create_new(path).is_err(), "{path:?}");
        assert!(directory.make_directories(path).is_err(), "{path:?}");
        assert!(directory.rename(Path::new("deep"), path).is_err(), "{path:?}");
        assert!(directory.remove(path).is_err(), "{path:?}");
        assert!(directory.metadata(path).is_err(), "{path:?}");
        assert!(directory.resolve_by_components(path, OFlags::RDONLY).is_err(), "{path:?}");
    }
    assert!(directory.read(Path::new("file")).is_err());
    assert!(directory.append(Path::new("file"), b"x").is_err());
    assert!(directory.append(Path::new("dangling"), b"x").is_err());
    assert!(directory.entries(Path::new("link")).is_err());
    // A link in place of a file is replaced or removed; its target stays.
    directory.write(Path::new("file"), b"inside", None, Flush::Now)?;
    directory.remove(Path::new("dangling"))?;
    assert_eq!(directory.read(Path::new("file"))?, b"inside");
    let outside = fs::read_dir(root.path().join("outside"))?.count();
    assert_eq!((outside, fs::read(root.path().join("outside/file"))?), (1, b"outside".to_vec()));
    Ok(())
}

#[test]
fn a_fifo_is_not_waited_for() -> TestResult {
    let (root, directory) = planted()?;
    let path = root.path().join("inside/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, FILE_MODE, 0)?;
    assert!(directory.read(Path::new("fifo")).is_err());
    assert!(directory.append(Path::new("fifo"), b"x").is_err());
    directory.write(Path::new("fifo"), b"a file", None, Flush::Later)?;
    assert_eq!(directory.read(Path::new("fifo"))?, b"a file");
    Ok(())
}

#[test]
fn a_directory_that_is_swapped_for_a_link_all_the_time_is_never_left() -> TestResult {
    let (root, directory) = planted()?;
    let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (name, link, away) = (inside.join("swap"), inside.join("swap-link"), inside.join("swap-away"));
            let _ = (fs::create_dir(&name), symlink(&outside, &link));
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = (fs::rename(&name, &away), fs::rename(&link, &name));
                let _ = (fs::rename(&name, &link), fs::rename(&away, &name));
            }
        });
        for _ in 0..2_000 {
            let _ = directory.write(Path::new("swap/new"), b"x", None, Flush::Later);
            let _ = directory.remove(Path::new("swap/file"));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside)?.count(), 1);
    assert_eq!(fs::read(outside.join("file"))?, b"outside");
    Ok(())
}
