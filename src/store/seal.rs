//! Secrets sealed for a database: XChaCha20-Poly1305, under a key of the host's.
//!
//! A sealed secret is one byte that names the key, the nonce (24 bytes), and the ciphertext with its tag. It is bound to
//! the row it stands in: copied into another one it does not open. XChaCha20's nonce is long enough to be drawn at
//! random, so that processes that share a key need no counter.

use std::{fmt, sync::Arc};

use base64_simd::STANDARD;
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::{Digest as _, Sha256};

use crate::{Context, Error, ErrorKind, Result, Secret};

const KEY: usize = 32;
const NONCE: usize = 24;

/// The first byte of a secret that is not sealed. No key has this name.
const PLAIN: u8 = 0;

/// How such a key is made, for the texts.
const MAKE: &str = "32 random bytes in base64, as `openssl rand -base64 32` prints them";

/// The keys that stored secrets are sealed with: one that seals, and perhaps an older one that only opens. What the old
/// key has sealed is sealed with the current one when it is next written.
///
/// ```
/// use mail_account::{Secret, store::KeyRing};
///
/// let current = Secret::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
/// let ring = KeyRing::from_base64(&current)?.with_old([7; 32]);
/// assert_eq!(format!("{ring:?}"), "KeyRing { old: true, .. }");
/// # Ok::<(), mail_account::Error>(())
/// ```
pub struct KeyRing {
    current: Key,
    old: Option<Key>,
}

impl KeyRing {
    /// Seals and opens with this key.
    #[must_use]
    pub fn new(current: [u8; KEY]) -> Self {
        Self { current: Key::new(current), old: None }
    }

    /// As [`new`](Self::new), with the key in base64; blanks around it do not count.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when it is no base64, or not of 32 bytes.
    pub fn from_base64(current: &Secret) -> Result<Self> {
        Self::parse(current)
            .map_err(|what| Error::new(ErrorKind::InvalidConfig, format!("the key for stored sign-ins {what}")))
    }

    /// As [`from_base64`](Self::from_base64); the error continues a sentence that begins with the key's place.
    pub(crate) fn parse(current: &Secret) -> Result<Self, String> {
        let bytes =
            STANDARD.decode_to_vec(current.expose().trim()).map_err(|_| format!("is not base64; it must be {MAKE}"))?;
        let length = bytes.len();
        let key = bytes.try_into().map_err(|_| format!("has {length} bytes instead of {KEY}; it must be {MAKE}"))?;
        Ok(Self::new(key))
    }

    /// Opens with this key too: the one that was current before.
    #[must_use]
    pub fn with_old(mut self, old: [u8; KEY]) -> Self {
        self.old = Some(Key::new(old));
        self
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        [&self.current].into_iter().chain(&self.old)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("old", &self.old.is_some()).finish_non_exhaustive()
    }
}

struct Key {
    /// Told by the key itself, so that nobody has to number keys. Two keys may have the same name; then both are tried.
    name: u8,
    bytes: SecretBox<[u8; KEY]>,
}

impl Key {
    fn new(bytes: [u8; KEY]) -> Self {
        let hash = Sha256::new().chain_update(b"mail-account key name").chain_update(bytes).finalize();
        let name = if hash[0] == PLAIN { 1 } else { hash[0] };
        Self { name, bytes: SecretBox::new(Box::new(bytes)) }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.bytes.expose_secret().into())
    }
}

/// What one opened store does with secrets.
#[derive(Debug, Default)]
pub(super) struct Sealer {
    pub(super) ring: Option<Arc<KeyRing>>,
    /// Whether secrets may lie in the database as they are.
    pub(super) plaintext: bool,
}

impl Sealer {
    /// Refuses what [`seal`](Self::seal) would refuse for want of a key.
    pub(super) fn can_seal(&self, what: &impl fmt::Display) -> Result<()> {
        if self.ring.is_some() || self.plaintext {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "{what} cannot be stored without a key to seal it with; set `key` in `[state]` to {MAKE}, or \
                 `plaintext_tokens = true` if the database is protected by other means"
            ),
        ))
    }

    /// `row` is where the secret will stand; `what` is what it is, for the error.
    pub(super) fn seal(
        &self,
        context: &Context,
        secret: &Secret,
        row: &str,
        what: &impl fmt::Display,
    ) -> Result<Vec<u8>> {
        self.can_seal(what)?;
        let Some(ring) = &self.ring else {
            return Ok([&[PLAIN], secret.expose().as_bytes()].concat());
        };
        let nonce = context.random::<NONCE>();
        let payload = Payload { msg: secret.expose().as_bytes(), aad: row.as_bytes() };
        let sealed = ring
            .current
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::new(ErrorKind::TooLarge, format!("{what} is too long to be sealed")))?;
        Ok([&[ring.current.name], nonce.as_slice(), &sealed].concat())
    }

    /// The reverse of [`seal`](Self::seal).
    pub(super) fn open(&self, sealed: &[u8], row: &str, what: &impl fmt::Display) -> Result<Secret> {
        let refused = |why: &str| Error::new(ErrorKind::InvalidConfig, format!("{what} {why}"));
        let damaged = || Error::new(ErrorKind::Storage, format!("{what} is damaged; sign in again"));
        let (name, rest) = sealed.split_first().ok_or_else(damaged)?;
        if *name == PLAIN {
            // Taken for granted, somebody who can write to the database could put a sign-in of their own there.
            if !self.plaintext {
                return Err(refused(
                    "is stored in plain text; set `plaintext_tokens = true` in `[state]` (beside `key`, until it has \
                     been sealed by its next refresh), or sign in again",
                ));
            }
            return text(rest.to_vec()).ok_or_else(damaged);
        }
        let Some(ring) = &self.ring else {
            return Err(refused(
                "is sealed, and no key is given; set `key` in `[state]` to the key it was sealed with: nothing is lost",
            ));
        };
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let nonce = XNonce::from(*nonce);
        let opened = ring
            .keys()
            .filter(|key| key.name == *name)
            .find_map(|key| key.cipher().decrypt(&nonce, Payload { msg: sealed, aad: row.as_bytes() }).ok());
        match opened {
            Some(bytes) => text(bytes).ok_or_else(damaged),
            None => Err(refused(
                "is sealed with another key than `key` in `[state]`, or was changed in the database; put the earlier \
                 key back (nothing is lost), or sign in again",
            )),
        }
    }
}

fn text(bytes: Vec<u8>) -> Option<Secret> {
    String::from_utf8(bytes).ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "sign-in 1, refresh token";

    fn with(ring: KeyRing) -> Sealer {
        Sealer { ring: Some(Arc::new(ring)), plaintext: false }
    }

    fn seal(sealer: &Sealer, secret: &str) -> Result<Vec<u8>> {
        sealer.seal(&Context::default(), &Secret::new(secret), ROW, &"the sign-in")
    }

    fn open(sealer: &Sealer, sealed: &[u8]) -> Result<String> {
        sealer.open(sealed, ROW, &"the sign-in").map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_secret_comes_back_and_is_not_to_be_seen() {
        let sealer = with(KeyRing::new([1; 32]));
        let sealed = seal(&sealer, "0.AXEAcanary").unwrap();
        assert_eq!(sealed.len(), "0.AXEAcanary".len() + 41);
        assert!(!sealed.windows(6).any(|part| part == b"canary"));
        assert_ne!(sealed, seal(&sealer, "0.AXEAcanary").unwrap(), "each time under a nonce of its own");
        assert_eq!(open(&sealer, &sealed).unwrap(), "0.AXEAcanary");
        let debug = format!("{sealer:?}");
        assert!(!debug.contains("1, 1"), "{debug}");
    }

    #[test]
    fn it_opens_in_its_own_row_only_and_only_unchanged() {
        let sealer = with(KeyRing::new([1; 32]));
        let sealed = seal(&sealer, "token").unwrap();
        let elsewhere = sealer.open(&sealed, "sign-in 2, refresh token", &"the sign-in").unwrap_err();
        assert_eq!(elsewhere.kind(), ErrorKind::InvalidConfig);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&sealer, &changed).is_err(), "byte {at}");
            assert!(open(&sealer, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn an_old_key_opens_and_does_not_seal() {
        let old = seal(&with(KeyRing::new([1; 32])), "token").unwrap();
        let ring = with(KeyRing::new([2; 32]).with_old([1; 32]));
        assert_eq!(open(&ring, &old).unwrap(), "token");
        let again = seal(&ring, "token").unwrap();
        assert_eq!(open(&with(KeyRing::new([2; 32])), &again).unwrap(), "token");

        let error = open(&with(KeyRing::new([2; 32])), &old).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("put the earlier key back"), "{error}");
        let error = open(&Sealer::default(), &old).unwrap_err();
        assert!(error.to_string().contains("no key is given"), "{error}");
    }

    #[test]
    fn two_keys_of_one_name_are_told_apart() {
        let twins = (0_u8..=255).flat_map(|a| (0..a).map(move |b| ([a; 32], [b; 32])));
        let (a, b) = twins
            .into_iter()
            .find(|(a, b)| Key::new(*a).name == Key::new(*b).name)
            .expect("256 keys have two of one name");
        let old = seal(&with(KeyRing::new(b)), "token").unwrap();
        assert_eq!(open(&with(KeyRing::new(a).with_old(b)), &old).unwrap(), "token");
        assert!(open(&with(KeyRing::new(a)), &old).is_err());
    }

    #[test]
    fn without_a_key_plain_text_must_be_asked_for() {
        let error = seal(&Sealer::default(), "token").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let text = error.to_string();
        assert!(text.contains("`key` in `[state]`") && text.contains("plaintext_tokens"), "{text}");

        let plain = Sealer { ring: None, plaintext: true };
        let stored = seal(&plain, "token").unwrap();
        assert_eq!(open(&plain, &stored).unwrap(), "token");
        // On the way to a key both are set: read as it is, written sealed.
        let both = Sealer { ring: Some(Arc::new(KeyRing::new([1; 32]))), plaintext: true };
        assert_eq!(open(&both, &stored).unwrap(), "token");
        assert_eq!(open(&with(KeyRing::new([1; 32])), &seal(&both, "token").unwrap()).unwrap(), "token");
        // A key alone trusts no plain text.
        let error = open(&with(KeyRing::new([1; 32])), &stored).unwrap_err();
        assert!(error.to_string().contains("plain text"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_key_is_told_without_the_key() {
        let told = |key: &str| KeyRing::from_base64(&Secret::new(key)).unwrap_err().to_string();
        assert!(told("not base64!").contains("is not base64"));
        assert!(told("c2hvcnQ=").contains("has 5 bytes instead of 32"));
        assert!(!told("c2hvcnQ=").contains("c2hvcnQ"));
        let key = STANDARD.encode_to_string([9; 32]);
        assert!(KeyRing::from_base64(&Secret::new(format!(" {key}\n"))).is_ok());
    }
}
