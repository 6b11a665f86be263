//! The address of a node, with its roles, rate limits and credentials.

use std::{fmt, path::PathBuf};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{provider::Provider, rate_limits::RateLimits};

/// The minimum length of a part of a URL, and of a header value, that is hidden in logs and errors. Shorter parts are
/// words such as `v2` or `mainnet`, not keys.
const SECRET_LENGTH_MIN: usize = 8;

/// A purpose for which an endpoint may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The endpoint answers requests about the chain.
    Read,
    /// The endpoint receives signed transactions to broadcast.
    Broadcast,
}

/// One node of a chain: its URL, roles, rate limits and credentials. `Display` and `Debug` show no path and no
/// credentials.
#[derive(Clone)]
pub struct Endpoint {
    url: Url,
    roles: Vec<Role>,
    limits: RateLimits,
    headers: HeaderMap,
    /// The first path segment of those requests that go to another base URL, and this base URL. `None` if all requests
    /// go to `url`.
    path_override: Option<(String, Url)>,
    /// The file that contains `user:password`; `None` if the endpoint needs no login from a file.
    login_file: Option<PathBuf>,
    /// True if the operator of settled runs the node.
    own: bool,
}

/// The reason why a configured endpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The URL is not valid. The error text omits the URL, because the URL may contain a key.
    #[error("an endpoint is not an http or https URL with a host")]
    BadUrl,
    /// The header is not valid in HTTP. The field contains the name of the header and never its value.
    #[error("the name or the value of header `{0}` is not valid in HTTP")]
    BadHeader(String),
}

impl Endpoint {
    /// Returns an endpoint with every role and without rate limits.
    pub fn new(url: &str) -> Result<Endpoint, EndpointError> {
        let url = parse_http_url(url)?;
        let roles = vec![Role::Read, Role::Broadcast];
        Ok(Endpoint {
            url,
            roles,
            limits: RateLimits::default(),
            headers: HeaderMap::new(),
            path_override: None,
            login_file: None,
            own: false,
        })
    }

    /// Sets the roles of the endpoint.
    pub fn with_roles(mut self, roles: &[Role]) -> Endpoint {
        self.roles = roles.to_vec();
        self
    }

    /// Sets the rate limits of the endpoint.
    pub fn with_limits(mut self, limits: RateLimits) -> Endpoint {
        self.limits = limits;
        self
    }

    /// Adds a header to every request, such as an API key; its value is marked as sensitive.
    pub fn with_sensitive_header(mut self, name: &str, value: &str) -> Result<Endpoint, EndpointError> {
        let invalid = || EndpointError::BadHeader(name.to_owned());
        let header: HeaderName = name.parse().map_err(|_| invalid())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        self.headers.insert(header, value);
        Ok(self)
    }

    /// Sets a file that contains `user:password`. The file is read before every request, because Bitcoin Core writes a
    /// new file at each start.
    pub fn with_login_file(mut self, file: PathBuf) -> Endpoint {
        self.login_file = Some(file);
        self
    }

    /// Sets whether the operator of settled runs the node, whose answers then need no second source.
    pub fn with_own(mut self, own: bool) -> Endpoint {
        self.own = own;
        self
    }

    /// Sets another base URL for all paths that begin with `first_segment`. java-tron needs this setting, because it
    /// serves the newest blocks on one port and the solidified (irreversible) blocks on another.
    pub fn with_path_override(mut self, first_segment: &str, url: &str) -> Result<Endpoint, EndpointError> {
        self.path_override = Some((first_segment.to_owned(), parse_http_url(url)?));
        Ok(self)
    }

    /// Returns true if the endpoint has this role.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Returns true if the operator of settled runs the node.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Returns the provider of the endpoint.
    pub fn provider(&self) -> Provider {
        Provider::from_url(&self.url)
    }

    /// Returns the rate limits of the endpoint.
    pub fn limits(&self) -> RateLimits {
        self.limits
    }

    /// Returns host and port, the only part of the URL that logs and errors may contain.
    pub fn host_and_port(&self) -> String {
        let host = self.url.host_str().unwrap_or("?");
        match self.url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Returns `text` with these secrets replaced by `…`: parts of the endpoint's URL and header values of 8 or more
    /// bytes, and the user name and password. Reads the login file again. A node's error message may repeat the key or
    /// the password of the request.
    pub fn redact_secrets(&self, text: &str) -> String {
        let urls = || std::iter::once(&self.url).chain(self.path_override.iter().map(|(_, url)| url));
        let query = urls().flat_map(|url| url.query_pairs().map(|(_, value)| value.into_owned()));
        let path = urls().flat_map(|url| url.path_segments().into_iter().flatten().map(str::to_owned));
        let url_login =
            urls().flat_map(|url| [url.username().to_owned(), url.password().unwrap_or_default().to_owned()]);
        let file_login =
            self.read_login_file().ok().flatten().into_iter().flat_map(|(user, password)| [user, password]);
        // Words of a path, such as `v2`, are short and no secrets; a password is a secret however short it is.
        let login = url_login.chain(file_login).filter(|part| !part.is_empty());
        let headers = self.headers.values().filter_map(|value| value.to_str().ok().map(str::to_owned));
        let long = query.chain(path).chain(headers).filter(|part| part.len() >= SECRET_LENGTH_MIN);
        let secrets = long.chain(login);
        secrets.fold(text.to_owned(), |text, secret| text.replace(&secret, "…"))
    }

    /// Reads user and password from the login file. Returns `None` if the endpoint has no login file.
    pub(crate) fn read_login_file(&self) -> Result<Option<(String, String)>, String> {
        let Some(file) = &self.login_file else { return Ok(None) };
        // A node that is not running may have no login file, so the caller handles this error like a refused
        // connection.
        let text = std::fs::read_to_string(file).map_err(|e| format!("the login file cannot be read: {e}"))?;
        let (user, password) = text.trim().split_once(':').ok_or("the login file is not `user:password`")?;
        Ok(Some((user.to_owned(), password.to_owned())))
    }

    pub(crate) fn header_map(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the URL of a request: `path`, which may have a query, below the URL of the endpoint. An empty path gives
    /// the URL of the endpoint itself.
    pub(crate) fn build_url_with_path_override(&self, path: &str) -> Url {
        let path_override = self.path_override.as_ref().filter(|(first, _)| path.split('/').next() == Some(first));
        let base = path_override.map_or(&self.url, |(_, url)| url);
        let mut url = base.clone();
        if !path.is_empty() {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let joined = format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/'));
            url.set_path(&joined);
            match (base.query(), query) {
                (_, "") => {}
                (None, added) => url.set_query(Some(added)),
                (Some(own), added) => url.set_query(Some(&format!("{own}&{added}"))),
            }
        }
        url
    }
}

fn parse_http_url(url: &str) -> Result<Url, EndpointError> {
    let url = Url::parse(url.trim()).map_err(|_| EndpointError::BadUrl)?;
    let usable = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    if usable { Ok(url) } else { Err(EndpointError::BadUrl) }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host_and_port())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}, {:?})", self.host_and_port(), self.roles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_printed() {
        let endpoint = Endpoint::new("https://alice99999:hunter2222@eth.example/v2/SECRETKEY?apikey=OTHERSECRET")
            .unwrap()
            .with_sensitive_header("x-api-key", "THIRDSECRET")
            .unwrap();
        let shown = format!("{endpoint} {endpoint:?}");
        let redacted = endpoint
            .redact_secrets("no access with SECRETKEY, OTHERSECRET, THIRDSECRET or alice99999:hunter2222 at v2");
        for secret in ["SECRETKEY", "OTHERSECRET", "THIRDSECRET", "alice", "hunter"] {
            assert!(!shown.contains(secret) && !redacted.contains(secret), "{secret} in {shown} or {redacted}");
        }
        assert!(redacted.ends_with("at v2"));
        let short = Endpoint::new("https://eth.example/v2").unwrap();
        let file = std::env::temp_dir().join(format!("settled-login-{}", std::process::id()));
        std::fs::write(&file, "__cookie__:pw1").unwrap();
        let short = short.with_login_file(file.clone());
        assert_eq!(short.redact_secrets("__cookie__ with pw1 is refused at v2"), "… with … is refused at v2");
        std::fs::remove_file(file).unwrap();
        assert_eq!(endpoint.host_and_port(), "eth.example:443");
    }

    #[test]
    fn paths_are_joined_below_the_endpoint() {
        let endpoint = Endpoint::new("http://node:8090/base/?key=1").unwrap();
        assert_eq!(endpoint.build_url_with_path_override("").as_str(), "http://node:8090/base/?key=1");
        assert_eq!(
            endpoint.build_url_with_path_override("wallet/getblock?x=2").as_str(),
            "http://node:8090/base/wallet/getblock?key=1&x=2"
        );
        let endpoint = endpoint.with_path_override("walletsolidity", "http://node:8091").unwrap();
        assert_eq!(
            endpoint.build_url_with_path_override("walletsolidity/getblock").as_str(),
            "http://node:8091/walletsolidity/getblock"
        );
        assert_eq!(
            endpoint.build_url_with_path_override("wallet/getblock").as_str(),
            "http://node:8090/base/wallet/getblock?key=1"
        );
        assert_eq!(Endpoint::new("ftp://node").unwrap_err(), EndpointError::BadUrl);
        assert_eq!(Endpoint::new("not a url").unwrap_err(), EndpointError::BadUrl);
    }
}
