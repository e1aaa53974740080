//! How clients are identified: what the flags about tokens say together.

use std::fmt;
use std::str::FromStr;

use url::Url;

use super::error::ConfigError;
use super::secret::Secret;
use super::settings::Layers;
use super::values::{Allowed, AuthMode, JwtLeeway};

/// Bytes of a secret, at least: those of an HS256 key (RFC 7518 §3.2).
const SECRET_BYTES: usize = 32;

/// How clients are identified, with what that needs.
#[derive(Clone, Debug)]
pub enum AuthSettings {
    /// Signed tokens.
    Jwt(JwtSettings),
    /// Development: the token names the user.
    InsecureToken,
    /// Each connection is a user of its own.
    Anonymous,
}

/// What verifies signed tokens: a secret, a key set, or both (while an issuer moves from one to the other).
#[derive(Clone, Debug, Default)]
pub struct JwtSettings {
    /// Key of HS256; of HS384 and HS512, too, when it has 48 or 64 bytes.
    pub secret: Option<Secret>,
    /// Where the issuer's public keys are.
    pub jwks_url: Option<JwksUrl>,
    /// `aud` that tokens must have.
    pub audience: Option<String>,
    /// `iss` that tokens must have.
    pub issuer: Option<String>,
    /// How far clocks may be apart.
    pub leeway: JwtLeeway,
    /// What a token without the claim `rooms` opens.
    pub rooms_claim: RoomsClaim,
}

/// Where a JWK set is: `https://…` or, inside a network that is trusted, `http://…`.
#[derive(Clone, PartialEq, Eq)]
pub struct JwksUrl(Url);

impl JwksUrl {
    /// The URL.
    pub const fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // a query may hold a key
        write!(f, "{}", self.0.host_str().unwrap_or_default())
    }
}

impl FromStr for JwksUrl {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        let allowed = Allowed(
            "a URL without user and password, such as https://login.example.com/.well-known/jwks.json",
        );
        let url = Url::parse(text).map_err(|_| allowed)?;
        let anonymous = url.username().is_empty() && url.password().is_none();
        if matches!(url.scheme(), "https" | "http") && url.has_host() && anonymous {
            Ok(Self(url))
        } else {
            Err(allowed)
        }
    }
}

/// Whether tokens must say which rooms they open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoomsClaim {
    /// A token without the claim opens every room.
    #[default]
    Optional,
    /// A token without the claim opens none.
    Required,
}

impl FromStr for RoomsClaim {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        match text {
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(Allowed("optional or required")),
        }
    }
}

impl Layers {
    pub(super) fn auth(&self) -> Result<AuthSettings, ConfigError> {
        let mode: AuthMode = self.value("auth", |args| &args.auth)?.unwrap_or_default();
        if mode == AuthMode::Jwt {
            return self.jwt().map(AuthSettings::Jwt);
        }
        let given = [
            ("jwt-secret-file", self.text(|args| &args.jwt_secret_file)),
            ("jwks-url", self.text(|args| &args.jwks_url)),
            ("jwt-audience", self.text(|args| &args.jwt_audience)),
            ("jwt-issuer", self.text(|args| &args.jwt_issuer)),
            ("jwt-leeway", self.text(|args| &args.jwt_leeway)),
            ("rooms-claim", self.text(|args| &args.rooms_claim)),
        ];
        if let Some((flag, _)) = given.into_iter().find(|(_, given)| given.is_some()) {
            let problem = "has a meaning with --auth jwt only; leave it out, or leave --auth out";
            return Err(ConfigError::Conflict { flag, problem });
        }
        Ok(if mode == AuthMode::Anonymous {
            AuthSettings::Anonymous
        } else {
            AuthSettings::InsecureToken
        })
    }

    fn jwt(&self) -> Result<JwtSettings, ConfigError> {
        let secret = self.text(|args| &args.jwt_secret_file);
        let secret = secret.map(|(_, path)| Secret::read("jwt-secret-file", path, SECRET_BYTES));
        let settings = JwtSettings {
            secret: secret.transpose()?,
            jwks_url: self.value("jwks-url", |args| &args.jwks_url)?,
            audience: self.not_empty("jwt-audience", |args| &args.jwt_audience)?,
            issuer: self.not_empty("jwt-issuer", |args| &args.jwt_issuer)?,
            leeway: self
                .value("jwt-leeway", |args| &args.jwt_leeway)?
                .unwrap_or_default(),
            rooms_claim: self
                .value("rooms-claim", |args| &args.rooms_claim)?
                .unwrap_or_default(),
        };
        if settings.secret.is_none() && settings.jwks_url.is_none() {
            return Err(ConfigError::Missing {
                flag: "jwt-secret-file",
                because: "--auth jwt, the default, needs it or --jwks-url; for development there is --auth insecure-token",
            });
        }
        Ok(settings)
    }
}
