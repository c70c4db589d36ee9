//! TLS to the database: whom the server trusts, what it says where it does not, and that it keeps the password to itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use tempfile::TempDir;
use url::Url;

use crate::support::{Cluster, Database, TestServer, on_postgres, skip};

const PASSWORD: &str = "correct-horse-battery-staple";

/// An authority, and what it has signed.
struct Certificates(TempDir);

impl Certificates {
    /// With a certificate for a server at 127.0.0.1, and nowhere else. Nothing, and a word on why, if it cannot be made.
    fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            skip("openssl is not installed.");
            return None;
        }
        let new = Self(tempfile::tempdir().expect("a directory"));
        new.openssl(&["req", "-x509", "-subj", "/CN=Authority", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2"]);
        new.openssl(&["req", "-new", "-subj", "/CN=Database", "-keyout", "server.key", "-out", "server.csr"]);
        fs::write(new.path("names"), "subjectAltName = IP:127.0.0.1\n").expect("a file");
        let signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"];
        let sign = [&["x509", "-req", "-in", "server.csr", "-out", "server.crt"][..], &signed].concat();
        new.openssl(&sign);
        Some(new)
    }

    fn openssl(&self, arguments: &[&str]) {
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let key = if arguments[0] == "req" { &key[..] } else { &[] };
        let made = Command::new("openssl").args(arguments).args(key).current_dir(self.0.path()).output();
        let made = made.expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect(name)
    }
}

/// A database that the user `app` owns, and reaches with TLS and a password only.
struct Encrypted {
    certificates: Certificates,
    database: Arc<Database>,
    _cluster: Cluster,
}

impl Encrypted {
    fn start() -> Option<Self> {
        if !on_postgres() {
            return None;
        }
        let (certificates, cluster) = (Certificates::new()?, Cluster::start()?);
        let access = "host all postgres 127.0.0.1/32 trust\nhostssl all app 127.0.0.1/32 scram-sha-256\n";
        cluster.configure(
            &[
                ("server.crt", &certificates.read("server.crt")),
                ("server.key", &certificates.read("server.key")),
                ("pg_hba.conf", access),
            ],
            &["ALTER SYSTEM SET ssl = on", &format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")],
        );
        let database = cluster.database();
        database.execute("ALTER SCHEMA public OWNER TO app");
        Some(Self { certificates, database: Arc::new(database), _cluster: cluster })
    }

    /// What a server is given that connects to this host in this way.
    fn url(&self, host: &str, parameters: &[(&str, &str)]) -> String {
        let mut url: Url = self.database.url().parse().expect("a URL");
        url.set_host(Some(host)).expect("a URL with a host");
        url.set_username("app").expect("a URL with a user");
        url.set_password(Some(PASSWORD)).expect("a URL with a password");
        url.query_pairs_mut().extend_pairs(parameters);
        url.into()
    }

    /// A server works when it connects in this way, with TLS throughout, and keeps the password to itself.
    async fn serves(&self, host: &str, parameters: &[(&str, &str)]) {
        let url = self.url(host, parameters);
        let shared = utf8(&self.certificates.path("shared"));
        let options = ["--database-url", &url, "--shared-dir", &shared];
        let server = TestServer::on_database(Arc::clone(&self.database), &options);
        server.workspace(&uuid::Uuid::new_v4().to_string()).await;
        let connections = "pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'app'";
        assert!(self.database.count(&format!("{connections} AND ssl")) > 1);
        assert_eq!(self.database.count(&format!("{connections} AND NOT ssl")), 0);
        assert!(!server.log().contains(PASSWORD));
    }

    /// A server does not start when it connects in this way. What it says.
    fn refused(&self, host: &str, parameters: &[(&str, &str)]) -> String {
        refused(&self.url(host, parameters))
    }

    fn authority(&self) -> String {
        utf8(&self.certificates.path("ca.crt"))
    }
}

fn utf8(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// What a server says that is told to log everything, and does not start.
fn refused(url: &str) -> String {
    let ended = run(&["--listen", "127.0.0.1:0", "--database-url", url, "--log", "trace"], &[]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    said
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = TestServer::command(directory.path());
    command.args(arguments).envs(environment.iter().copied()).output().expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_verified_before_it_is_told_anything() {
    let Some(encrypted) = Encrypted::start() else { return };
    let authority = encrypted.authority();
    for mode in ["verify-full", "verify-ca", "require"] {
        encrypted.serves("127.0.0.1", &[("sslmode", mode), ("sslrootcert", &authority)]).await;
    }

    let another = Certificates::new().expect("another authority");
    let another = utf8(&another.path("ca.crt"));
    let said = encrypted.refused("127.0.0.1", &[("sslmode", "verify-full"), ("sslrootcert", &another)]);
    assert!(said.contains("certificate"), "{said}");
    // The machine's own authorities have not signed it either.
    let said = encrypted.refused("127.0.0.1", &[("sslmode", "verify-full")]);
    assert!(said.contains("certificate"), "{said}");

    // It is the same host by another name, for which there is no certificate. To verify is always to verify the name too.
    for mode in ["verify-full", "verify-ca"] {
        let said = encrypted.refused("localhost", &[("sslmode", mode), ("sslrootcert", &authority)]);
        assert!(said.contains("certificate") && said.contains("localhost"), "{said}");
    }
    let said = encrypted.refused("127.0.0.1", &[("sslmode", "verify-full"), ("sslrootcert", "/not/there.crt")]);
    assert!(said.contains("sslrootcert=/not/there.crt"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_encrypted_without_being_verified_where_that_is_all_that_is_asked() {
    let Some(encrypted) = Encrypted::start() else { return };
    encrypted.serves("localhost", &[("sslmode", "require")]).await;
    encrypted.serves("127.0.0.1", &[]).await;
    let said = encrypted.refused("127.0.0.1", &[("sslmode", "disable")]);
    assert!(said.contains("no encryption"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_that_is_wanted() {
    let Some(cluster) = Cluster::shared().filter(|_| on_postgres()) else { return };
    let url = |mode: &str| format!("{}?sslmode={mode}", cluster.database().url());
    for mode in ["require", "verify-full"] {
        let said = refused(&url(mode));
        assert!(said.contains("TLS"), "{said}");
    }
}

#[test]
fn the_password_is_told_to_nobody() {
    let url = format!("postgres://app:{PASSWORD}@127.0.0.1:1/jobstream");
    let said = refused(&url);
    assert!(said.contains("the database cannot be used"), "{said}");
    let malformed = [
        format!("{url}?sslmode=perhaps"),
        format!("{url}?unheard=of"),
        format!("mysql://app:{PASSWORD}@127.0.0.1/jobstream"),
        format!("postgres://app:{PASSWORD}@127.0.0.1:port/jobstream"),
    ];
    for url in &malformed {
        let said = refused(url);
        assert!(said.contains("--database-url"), "{said}");
        let ended = run(&[], &[("JOBSTREAM_DATABASE_URL", url)]);
        assert!(!String::from_utf8_lossy(&ended.stderr).contains(PASSWORD));
        assert_eq!(ended.status.code(), Some(2));
    }
    let help = run(&["--help"], &[("JOBSTREAM_DATABASE_URL", &url)]);
    assert!(help.status.success() && !String::from_utf8_lossy(&help.stdout).contains(PASSWORD));
}
