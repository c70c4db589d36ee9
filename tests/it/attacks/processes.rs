//! What jobs can do to the processes of the server, and with the properties that reach them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::json;

use crate::support::{TestServer, skip, text, unprivileged};

/// A server that does not run as root, as which everything could be read.
fn unprivileged_server(arguments: &[&str]) -> TestServer {
    let as_nobody = |data: &Path| {
        unprivileged::give(data.parent().expect("its directory"));
        unprivileged::prefix()
    };
    TestServer::wrapped(as_nobody, arguments)
}

/// Reads what it can of the processes whose ids are its arguments, and says what that was.
const SPY: &str = r#"
spy() {
    for pid; do
        for file in environ mem maps; do
            if [ "$file" = mem ]; then
                python3 - "$pid" <<'PYTHON' && echo "read mem"
import sys
with open(f"/proc/{sys.argv[1]}/maps") as maps: start = int(maps.readline().split("-")[0], 16)
with open(f"/proc/{sys.argv[1]}/mem", "rb") as mem: mem.seek(start); mem.read(16)
PYTHON
            else
                tr '\\0' '\\n' < "/proc/$pid/$file" > /dev/null && echo "read $file"
            fi
        done
        ls "/proc/$pid/fd" > /dev/null && echo "read fd"
        python3 -c 'import ctypes, sys; libc = ctypes.CDLL(None); sys.exit(libc.ptrace(0x4206, int(sys.argv[1]), None, None) != 0)' "$pid" &&
            echo "traced"
    done
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cannot_read_or_trace_supervisors() {
    let server = unprivileged_server(&["--slots", "3"]);
    let script = format!(
        "{SPY}\nserver=$(awk '/^PPid:/ {{ print $2 }}' \"/proc/$PPID/status\")\n\
         supervisors=$(ps -o pid= --ppid \"$server\")\necho \"$(wc -w <<< \"$supervisors\") supervisors\"\n\
         spy $supervisors \"$server\" 2> /dev/null; spy $$ 2> /dev/null | sed 's/^/own: /' | grep -v traced; true"
    );
    let job = server.run_script(&script).await;
    server.final_job(&job).await;
    let log = server.log_text(&job).await;
    let lines: Vec<&str> = log.lines().collect();
    // Of a job's own processes all of it can be read, or this would show nothing. Whether they can be traced is the machine's affair.
    assert_eq!(
        lines,
        ["3 supervisors", "own: read environ", "own: read mem", "own: read maps", "own: read fd"],
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_values_of_a_job_that_has_ended_are_not_left_in_its_supervisor() {
    let server = TestServer::with(&["--slots", "1"]);
    let workspace = server.workspace("Workspace").await;
    let secret = format!("zyzzyva-{}", "9081726354".repeat(20));
    // With characters that are escaped where it is sent as JSON; and so large that buffers grow.
    let large = format!("{secret}\n\"{}", "x\\".repeat(30_000));
    let properties = json!([
        { "name": "tap.key", "value": secret, "sensitive": true },
        { "name": "tap.large", "value": large, "sensitive": true },
        { "name": "tap.plain", "value": large },
    ]);
    let script = "echo $PPID; [ ${#TAP_KEY} = 208 ]";
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let job = server.run(&server.pipeline_with(input).await).await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    let supervisor: i32 = server.log_text(&job).await.trim().parse().expect("a pid");
    let Some(memory) = memory_of(supervisor) else {
        return skip("the memory of a supervisor: only root can read it");
    };
    // The first half is enough to see that a copy was there.
    let (found, known) = (occurrences(&memory, &secret.as_bytes()[..100]), occurrences(&memory, b"supervise"));
    assert!(known > 0, "nothing was read");
    assert_eq!(found, 0, "copies of a sensitive value are left");
}

/// What a process can write to, and so may have a value in. None if it cannot be read.
fn memory_of(pid: i32) -> Option<Vec<u8>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut file = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut memory = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[vvar")) {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        file.seek(SeekFrom::Start(start)).ok()?;
        let _ = Read::by_ref(&mut file).take(end - start).read_to_end(&mut memory); // some of it may not be there
    }
    (!memory.is_empty()).then_some(memory)
}

fn occurrences(memory: &[u8], wanted: &[u8]) -> usize {
    let first = wanted[0];
    memory.windows(wanted.len()).filter(|window| window[0] == first && *window == wanted).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_property_reaches_the_loader_or_the_shell_of_the_server_s_own_processes() {
    let server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    let trap = server.scratch().join("trap.sh");
    let sprung = server.scratch().join("sprung");
    std::fs::write(&trap, format!("echo $0 $JOBSTREAM_ATTEMPT >> {}\n", sprung.display())).expect("a file");
    let trap = trap.to_str().expect("UTF-8");
    let properties = json!([
        { "name": "ld.preload", "value": "/nonexistent/preload.so" },
        { "name": "ld.audit", "value": "/nonexistent/audit.so" },
        { "name": "ld.debug", "value": "statistics" },
        { "name": "bash.env", "value": trap },
        { "name": "git.dir", "value": "/nonexistent" },
        { "name": "python.warnings", "value": "x" },
        { "name": "malloc.check_", "value": "3" },
        { "name": "tap.key", "value": "1" },
    ]);
    let script = "echo \"$LD_PRELOAD $TAP_KEY\"";
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let pipeline = server.pipeline_with(input).await;
    let verify = server.verify(&pipeline).await;
    assert_eq!(server.final_job(&verify).await["status"], "COMPLETE");
    let lines = server.log_lines(&verify).await;
    assert!(lines.iter().all(|line| line["stream"] == "STDOUT"), "{lines:?}");
    assert!(!sprung.exists(), "a shell of the server's own has obeyed a property");

    // A script is the user's, and finds what the user has set.
    let job = server.run(&pipeline).await;
    server.final_job(&job).await;
    let lines = server.log_lines(&job).await;
    let printed: Vec<&str> = lines.iter().map(|line| text(&line["text"])).collect();
    assert!(printed.contains(&"/nonexistent/preload.so 1"), "{printed:?}");
    assert!(sprung.exists());
}
