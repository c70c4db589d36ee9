//! What deliveries are signed with, in the form of the Standard Webhooks specification.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::Generate;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// What marks a secret of that form.
const PREFIX: &str = "whsec_";
/// A secret of another form has at least so many characters.
const SHORTEST: usize = 16;
const LONGEST: usize = 256;

/// A secret: either `whsec_` and bytes in base64, or any text, whose bytes are the key. Its `Debug` hides it.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<String>);

impl WebhookSecret {
    /// A new one.
    pub fn generate() -> Self {
        let bytes = Zeroizing::new(<[u8; 32]>::generate());
        Self(Zeroizing::new(format!("{PREFIX}{}", STANDARD.encode(*bytes))))
    }

    /// The one that a user gives, or what is wrong with it.
    pub fn parse(text: String) -> Result<Self, String> {
        let secret = Self(Zeroizing::new(text));
        let fits = (SHORTEST..=LONGEST).contains(&secret.0.len());
        if !fits {
            return Err(format!("A secret has {SHORTEST} to {LONGEST} bytes."));
        }
        let is_base64 = |it: &str| STANDARD.decode(it).is_ok();
        if secret.0.strip_prefix(PREFIX).is_some_and(|rest| !is_base64(rest)) {
            return Err(format!("After {PREFIX} a secret is in base64."));
        }
        Ok(secret)
    }

    /// The secret itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The signature of a message: of its id, when it is sent (in seconds since 1970), and its body.
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let key = match self.0.strip_prefix(PREFIX).map(|rest| STANDARD.decode(rest)) {
            Some(Ok(key)) => Zeroizing::new(key),
            _ => Zeroizing::new(self.0.as_bytes().to_vec()),
        };
        // A key of any length will do.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl From<Zeroizing<String>> for WebhookSecret {
    fn from(secret: Zeroizing<String>) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_the_specification_says() {
        // The specification's own example.
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()).unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        assert!(WebhookSecret::parse("short".to_owned()).is_err());
        assert!(WebhookSecret::parse("whsec_not base64 at all".to_owned()).is_err());
        assert!(WebhookSecret::parse(WebhookSecret::generate().as_str().to_owned()).is_ok());
        assert_ne!(WebhookSecret::generate().as_str(), WebhookSecret::generate().as_str());
    }
}
