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
        assert!(directory.clear(path).is_err(), "{path:?}");
        assert!(directory.create_new(path).is_err(), "{path:?}");
        assert!(directory.make_directories(path).is_err(), "{path:?}");
        assert!(directory.rename(Path::new("deep"), path).is_err(), "{path:?}");
        assert!(directory.remove(path).is_err(), "{path:?}");
        assert!(directory.metadata(path).is_err(), "{path:?}");
        assert!(directory.resolve_by_components(path, OFlags::RDONLY).is_err(), "{path:?}");
    }
    assert!(directory.read(Path::new("file")).is_err());
    assert!(directory.entries(Path::new("link")).is_err());
    // A link in place of a file is replaced or removed; its target stays.
    directory.write(Path::new("file"), b"inside", None, Flush::Now)?;
    directory.append(Path::new("dangling"), b"inside")?;
    assert_eq!(directory.read(Path::new("dangling"))?, b"inside");
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
    directory.append(Path::new("fifo"), b"a log")?;
    assert_eq!(directory.read(Path::new("fifo"))?, b"a log");
    directory.remove(Path::new("fifo"))?;
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, FILE_MODE, 0)?;
    directory.write(Path::new("fifo"), b"a file", None, Flush::Later)?;
    assert_eq!(directory.read(Path::new("fifo"))?, b"a file");
    Ok(())
}

#[test]
fn a_file_with_two_names_is_not_written_in_place() -> TestResult {
    let (root, directory) = planted()?;
    let outside = root.path().join("outside/file");
    fs::hard_link(&outside, root.path().join("inside/hard"))?;
    directory.append(Path::new("hard"), b"a")?;
    directory.append(Path::new("hard"), b"b")?;
    assert_eq!(directory.read(Path::new("hard"))?, b"ab");
    fs::remove_file(root.path().join("inside/hard"))?;
    fs::hard_link(&outside, root.path().join("inside/hard"))?;
    directory.write(Path::new("hard"), b"c", Some(Mode::RWXU), Flush::Now)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&outside)?.permissions());
    assert_eq!((fs::read(&outside)?, mode & 0o111), (b"outside".to_vec(), 0));
    Ok(())
}

#[test]
fn a_directory_in_place_of_a_file_is_replaced() -> TestResult {
    let (root, directory) = planted()?;
    let inside = root.path().join("inside");
    let plant = |name: &str| fs::create_dir_all(inside.join(name).join("sub"));
    let path = Path::new("replaced");
    for empty in [true, false] {
        let plant = |name: &str| if empty { fs::create_dir_all(inside.join(name)) } else { plant(name) };
        for operation in ["write", "write_link", "append", "rename_over"] {
            let _ = fs::remove_file(inside.join(path));
            plant("replaced")?;
            plant(UNFINISHED)?;
            match operation {
                "write" => directory.write(path, b"x", None, Flush::Now)?,
                "write_link" => directory.write_link(path, b"x")?,
                "append" => directory.append(path, b"x")?,
                _ => {
                    fs::write(inside.join("other"), "x")?;
                    directory.rename_over(Path::new("other"), path)?;
                }
            }
            assert!(!inside.join(path).is_dir(), "{operation}");
        }
    }
    let aside =
        directory.entries(Path::new("."))?.into_iter().filter(|(name, _)| name.to_string_lossy().starts_with(REPLACED));
    assert_eq!(aside.count(), 7, "what was in them is kept");
    Ok(())
}

#[test]
fn an_error_names_the_path() -> TestResult {
    let (root, directory) = planted()?;
    fs::create_dir_all(root.path().join("inside/full/sub"))?;
    let path = Path::new("full");
    let errors = [
        directory.remove(path).err(),
        directory.create_new(path).map(drop).err(),
        directory.read(path).map(drop).err(),
        directory.link_target(path).map(drop).err(),
        directory.rename(Path::new("file"), path).err(),
        directory.read(Path::new("full/missing")).map(drop).err(),
    ];
    for error in errors {
        let error = error.ok_or("it must fail")?.to_string();
        assert!(error.contains("full"), "{error}");
    }
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
