//! Sockets, and TLS on them.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use rustls_platform_verifier::Verifier;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::failure::{Failure, Outcome};
use crate::{Error, ErrorKind};

/// What a session talks through: a socket, TLS on one, or a test's pipe.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

pub(crate) type Stream = Box<dyn Io>;

/// TLS settings, made once per account because reading the platform's roots is slow.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// The platform's roots, and those in `ca_file`.
    ///
    /// The provider is named explicitly: the process default belongs to the host program.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let extra = ca_file.map(read_roots).transpose()?.unwrap_or_default();
        let failed = |e: rustls::Error| {
            Error::new(ErrorKind::InvalidConfig, "TLS cannot be set up on this machine").with_source(e)
        };
        let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(failed)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(crate) async fn wrap(&self, host: &str, stream: Stream) -> Outcome<Stream> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::new(ErrorKind::InvalidConfig, format!("`host`: `{host}` is neither a host name nor an address"))
        })?;
        let wrapped = self.0.connect(name, stream).await;
        Ok(Box::new(wrapped.map_err(|error| Failure::Tls { host: host.to_owned(), error })?))
    }
}

fn read_roots(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |what: &str| Error::new(ErrorKind::InvalidConfig, format!("`ca_file`: `{}` {what}", file.display()));
    let pem = std::fs::read(file).map_err(|e| bad("cannot be read").with_source(e))?;
    let roots: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| bad("is not PEM").with_source(e))?;
    if roots.is_empty() {
        return Err(bad("holds no certificate"));
    }
    Ok(roots)
}

pub(crate) async fn connect(host: &str, port: u16, limit: Duration) -> Outcome<TcpStream> {
    let failed = |error| Failure::Connect { to: format!("{host}:{port}"), error };
    let stream = match timeout(limit, TcpStream::connect((host, port))).await {
        Ok(stream) => stream.map_err(failed)?,
        Err(_) => return Err(failed(io::Error::from(io::ErrorKind::TimedOut))),
    };
    // Commands are small and we wait for each answer.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_ca_file_is_named() {
        let error = Tls::new(Some(Path::new("/nonexistent/ca.pem"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = Tls::new(Some(empty.path())).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}
