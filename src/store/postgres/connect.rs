//! Connections to PostgreSQL, with TLS where it is wanted.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use diesel::ConnectionError;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Error;

/// What the server asks of every connection. A node that is cut off in the middle of a transaction must not hold its locks for ever.
const SESSION: &str = "SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '30s'; SET lock_timeout = '15s'; \
    SET synchronous_commit = on; SET default_transaction_isolation = 'read committed'; SET application_name = 'jobstream'";
const CONNECTING: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long the other side may take to acknowledge what it was sent.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Where a database is, and how it is connected to: `postgres://user:password@host:port/database`, with `sslmode` and `sslrootcert`. Its
/// `Debug` hides the password.
#[derive(Clone)]
pub struct DatabaseUrl {
    config: Config,
    tls: Option<Tls>,
}

/// Whom a connection with TLS trusts.
#[derive(Debug, Clone)]
enum Tls {
    /// Anybody: the connection is encrypted, and nothing more.
    Unverified,
    /// Who has a certificate of these authorities, or of the machine's, for the name in the address.
    Verified(Option<std::path::PathBuf>),
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(nth, host)| {
            let port = ports.get(nth).or(ports.first()).unwrap_or(&5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}, port {port}", path.display()),
            }
        });
        let hosts: Vec<String> = hosts.collect();
        write!(f, "{} at {}", self.config.get_dbname().unwrap_or("?"), hosts.join(", "))
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut url = url::Url::parse(text).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("it is a PostgreSQL URL: postgres://user:password@host:port/database".to_owned());
        }
        let (mut mode, mut authorities) = ("prefer".to_owned(), None);
        // The two that the library does not know in full are taken out for it.
        let others: Vec<(String, String)> = url
            .query_pairs()
            .filter_map(|(name, value)| match &*name {
                "sslmode" => {
                    mode = value.into_owned();
                    None
                }
                "sslrootcert" => {
                    authorities = Some(value.into_owned().into());
                    None
                }
                _ => Some((name.into_owned(), value.into_owned())),
            })
            .collect();
        url.set_query(None);
        if !others.is_empty() {
            let query =
                url.query_pairs_mut().clear().extend_pairs(others).finish().query().map(|it| it.replace('+', "%20"));
            // The library reads a plus as it is, not as a space.
            url.set_query(query.as_deref());
        }
        let mut config: Config = url.as_str().parse().map_err(|error: tokio_postgres::Error| error.to_string())?;
        let (mode, tls) = match mode.as_str() {
            "disable" => (SslMode::Disable, None),
            "allow" | "prefer" => (SslMode::Prefer, Some(Tls::Unverified)),
            "require" if authorities.is_none() => (SslMode::Require, Some(Tls::Unverified)),
            "require" | "verify-ca" | "verify-full" => (SslMode::Require, Some(Tls::Verified(authorities))),
            other => return Err(format!("sslmode={other}: it is disable, prefer, require, verify-ca or verify-full")),
        };
        config
            .ssl_mode(mode)
            .connect_timeout(CONNECTING)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE)
            .keepalives_retries(2)
            .tcp_user_timeout(UNACKNOWLEDGED);
        Ok(Self { config, tls })
    }
}

impl DatabaseUrl {
    /// Whether there is a password in it.
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// A new connection, set up as all are.
    pub(super) async fn connect(&self) -> Result<AsyncPgConnection, Error> {
        self.establish().await.map_err(Error::unavailable)
    }

    /// A new connection on which nothing is set up, for looking around. It ends when the client is dropped.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        let refused = |error: tokio_postgres::Error| Error::unavailable(explain(&error));
        match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(refused)?;
                tokio::spawn(connection);
                Ok(client)
            }
            Some(tls) => {
                let tls = MakeRustlsConnect::new(tls.config().map_err(Error::unavailable)?);
                let (client, connection) = self.config.connect(tls).await.map_err(refused)?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    }

    async fn establish(&self) -> Result<AsyncPgConnection, ConnectionError> {
        let bad = |error: &dyn fmt::Display| ConnectionError::BadConnection(error.to_string());
        let mut conn = match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(|it| bad(&explain(&it)))?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await?
            }
            Some(tls) => {
                let tls = MakeRustlsConnect::new(tls.config().map_err(|it| bad(&it))?);
                let (client, connection) = self.config.connect(tls).await.map_err(|it| bad(&explain(&it)))?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await?
            }
        };
        conn.batch_execute(SESSION).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }
}

/// What the library says, with the reason, which it keeps apart.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    let reason = std::error::Error::source(error).map(|it| format!(": {it}"));
    format!("{error}{}", reason.unwrap_or_default())
}

impl Tls {
    fn config(&self) -> Result<ClientConfig, String> {
        // Fails if somebody has said so before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = ClientConfig::builder();
        let config = match self {
            Self::Unverified => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(unverified::Anybody::default()))
                .with_no_client_auth(),
            Self::Verified(authorities) => {
                let mut roots = rustls::RootCertStore::empty();
                match authorities {
                    Some(file) => {
                        let named = |error: &dyn fmt::Display| format!("sslrootcert={}: {error}", file.display());
                        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| named(&error))? {
                            let certificate = certificate.map_err(|error| named(&error))?;
                            roots.add(certificate).map_err(|error| named(&error))?;
                        }
                    }
                    None => {
                        for certificate in rustls_native_certs::load_native_certs().certs {
                            let _ = roots.add(certificate); // one that cannot be read vouches for nobody
                        }
                    }
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
        Ok(config)
    }
}

/// Connections to this database, at most so many.
pub(super) fn pool(url: Arc<DatabaseUrl>, most: usize) -> Result<Pool<AsyncPgConnection>, Error> {
    let mut config = ManagerConfig::<AsyncPgConnection>::default();
    config.recycling_method = RecyclingMethod::Fast;
    config.custom_setup = Box::new(move |_| {
        let url = Arc::clone(&url);
        async move { url.establish().await }.boxed()
    });
    let connections = AsyncDieselConnectionManager::new_with_config("", config);
    Pool::builder(connections).max_size(most).build().map_err(Error::internal)
}

/// Encryption without a look at whom one speaks to, as `sslmode=require` has always meant.
mod unverified {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Anybody(CryptoProvider);

    impl Default for Anybody {
        fn default() -> Self {
            Self(rustls::crypto::ring::default_provider())
        }
    }

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> DatabaseUrl {
        url.parse().unwrap()
    }

    #[test]
    fn what_the_library_knows_is_left_to_it() {
        let url = read("postgres://app@db/jobs?options=-c%20work_mem%3D8MB&sslmode=verify-full&sslrootcert=/a%20b.crt");
        assert_eq!(url.config.get_options(), Some("-c work_mem=8MB"));
        assert!(matches!(&url.tls, Some(Tls::Verified(Some(file))) if file.to_str() == Some("/a b.crt")));
        assert_eq!(read("postgres://app@db/jobs?application_name=a%2Bb").config.get_application_name(), Some("a+b"));
    }

    #[test]
    fn it_is_shown_without_the_password() {
        let url = read("postgres://app:secret@[::1]:6432/jobs");
        assert_eq!(
            (url.to_string(), format!("{url:?}")),
            ("jobs at ::1:6432".to_owned(), "jobs at ::1:6432".to_owned())
        );
        assert_eq!(read("postgresql://app:secret@db.example.com/jobs").to_string(), "jobs at db.example.com:5432");
    }
}
