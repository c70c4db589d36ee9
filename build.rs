//! Builds GraphiQL, the page at `/`, into the program.
//!
//! `web/` is copied into Cargo's output directory and built there by npm, so that nothing is written into the source tree and
//! nothing is fetched at run time. Without npm or the network, and with `JOBSTREAM_WEB=none`, which saves the time, the program is built
//! without GraphiQL, and a page says so. With `JOBSTREAM_WEB=required` the build fails instead. Cargo runs this again when the variable
//! changes, or a file of `web/` that the page is made of. After npm has been installed, `touch build.rs`.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the page is made of, in `web/`. The test beside it is not.
const SOURCES: [&str; 7] =
    [".npmrc", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "src"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=JOBSTREAM_WEB");
    for source in SOURCES {
        println!("cargo:rerun-if-changed=web/{source}");
    }
    let output = PathBuf::from(env::var("OUT_DIR")?);
    let files = match env::var("JOBSTREAM_WEB").as_deref() {
        Ok("none") => Vec::new(),
        Ok("required") => build(&output.join("web"))?,
        _ => build(&output.join("web")).unwrap_or_else(|error| {
            println!("cargo:warning=GraphiQL is not part of this build: {error}");
            Vec::new()
        }),
    };
    fs::write(output.join("graphiql.rs"), table(&files)?)?;
    Ok(())
}

/// Builds the page in this directory, and answers its files.
fn build(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    for source in SOURCES {
        copy(&Path::new("web").join(source), &directory.join(source))?;
    }
    npm(directory, &["ci", "--omit=dev"])?;
    npm(directory, &["run", "build"])?;
    // It is large, and not needed any more.
    fs::remove_dir_all(directory.join("node_modules"))?;
    let mut files = Vec::new();
    list(&directory.join("dist"), &mut files)?;
    files.sort();
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// Runs npm. If it fails, the first line in which it speaks of an error says why.
fn npm(directory: &Path, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("npm cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().find(|line| line.contains("rror")).unwrap_or_default();
    Err(format!("`npm {}` has failed. {why}", arguments.join(" ")).into())
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// A Rust expression: a slice of the files' names and contents.
fn table(files: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let mut table = String::from("&[\n");
    for file in files {
        let name = file.file_name().and_then(|it| it.to_str()).ok_or("a file's name is not UTF-8")?;
        let path = file.to_str().ok_or("a path is not UTF-8")?;
        writeln!(table, "    ({name:?}, include_bytes!({path:?}) as &[u8]),")?;
    }
    table.push_str("]\n");
    Ok(table)
}
