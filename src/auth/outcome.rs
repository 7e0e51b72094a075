//! What a hand-over came to, and how to say so to the person who stands before the browser.

use std::fmt::Write as _;

use url::Url;

use crate::{Error, Language, store::Signer};

/// What a hand-over came to. Only [`Authorised`](Self::Authorised) has stored anything.
#[derive(Debug)]
#[non_exhaustive]
pub enum SignInOutcome {
    /// The right person signed in, the mailbox was read, and the sign-in is stored.
    Authorised {
        /// The account.
        account: String,
        /// Who signed in.
        signer: Signer,
    },
    /// An administrator consented.
    Consented {
        /// The account that it was asked for.
        account: String,
    },
    /// Somebody else signed in than the one the configuration names.
    WrongIdentity {
        /// The account.
        account: String,
        /// Who should have: `principal` of the configuration.
        expected: String,
        /// Who did.
        signed_in: Signer,
    },
    /// An administrator must consent first.
    ConsentPending {
        /// The account.
        account: String,
        /// Where an administrator does that; `None` where the service has no such page.
        link: Option<Url>,
        /// The service's words.
        error: Error,
    },
    /// It did not work.
    Refused {
        /// The account.
        account: String,
        /// Why.
        error: Error,
    },
    /// The answer came too late; nothing was asked of the service.
    Expired {
        /// The account.
        account: String,
    },
    /// The hand-over was answered before.
    AlreadyUsed {
        /// The account.
        account: String,
    },
    /// The answer belongs to no hand-over of ours.
    Foreign,
}

impl SignInOutcome {
    /// The account that it is about.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Authorised { account, .. }
            | Self::Consented { account }
            | Self::WrongIdentity { account, .. }
            | Self::ConsentPending { account, .. }
            | Self::Refused { account, .. }
            | Self::Expired { account }
            | Self::AlreadyUsed { account } => Some(account),
            Self::Foreign => None,
        }
    }

    /// Whether it worked.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Authorised { .. } | Self::Consented { .. })
    }

    /// What happened and what to do, in a sentence or two. The reasons of a service are in English.
    #[must_use]
    pub fn message(&self, language: Language) -> String {
        let dutch = language == Language::Dutch;
        match self {
            Self::Authorised { account, signer } if dutch => {
                format!("Het account `{account}` werkt. Aangemeld is {}.", signer.name)
            }
            Self::Authorised { account, signer } => {
                format!("The account `{account}` works. {} has signed in.", signer.name)
            }
            Self::Consented { account } if dutch => {
                format!("De toestemming van de beheerder voor het account `{account}` is gegeven.")
            }
            Self::Consented { account } => {
                format!("The administrator's consent for the account `{account}` is given.")
            }
            Self::WrongIdentity { account, expected, signed_in } if dutch => format!(
                "{} heeft zich aangemeld, maar het account `{account}` is van {expected}. Er is niets opgeslagen. Open de link opnieuw en kies {expected}.",
                signed_in.name
            ),
            Self::WrongIdentity { account, expected, signed_in } => format!(
                "{} has signed in, but the account `{account}` is for {expected}. Nothing was stored. Start again and choose {expected}.",
                signed_in.name
            ),
            Self::ConsentPending { account, link, error } => {
                let mut text = if dutch {
                    format!("Voor het account `{account}` moet een beheerder eerst toestemming geven.")
                } else {
                    format!("An administrator must consent before the account `{account}` can be used.")
                };
                if let Some(link) = link {
                    let _ = write!(text, " {}: {link}", if dutch { "Dat kan hier" } else { "That is done here" });
                }
                let _ = write!(text, " ({})", error.message());
                text
            }
            Self::Refused { account, error } if dutch => {
                format!("Het aanmelden voor het account `{account}` is niet gelukt: {}", error.message())
            }
            Self::Refused { account, error } => {
                format!("The sign-in for the account `{account}` did not work: {}", error.message())
            }
            Self::Expired { account } if dutch => {
                format!("De link voor het account `{account}` is verlopen. Vraag een nieuwe.")
            }
            Self::Expired { account } => {
                format!("The link for the account `{account}` has expired. Ask for a new one.")
            }
            Self::AlreadyUsed { account } if dutch => {
                format!("De link voor het account `{account}` is al gebruikt. Vraag zo nodig een nieuwe.")
            }
            Self::AlreadyUsed { account } => {
                format!("The link for the account `{account}` was used already. Ask for a new one if needed.")
            }
            Self::Foreign if dutch => "Deze aanmelding is hier niet begonnen, of is lang geleden verlopen.".to_owned(),
            Self::Foreign => "This sign-in was not begun here, or has expired long ago.".to_owned(),
        }
    }

    /// A small page for the browser that came back, in English and Dutch. It holds no script and refers to nothing.
    #[must_use]
    pub fn page(&self) -> String {
        let title = match self {
            Self::Authorised { .. } => "Signed in · Aangemeld",
            Self::Consented { .. } => "Consent given · Toestemming gegeven",
            Self::ConsentPending { .. } => "Consent needed · Toestemming nodig",
            _ => "Not signed in · Niet aangemeld",
        };
        let mut body = String::new();
        for (language, code, close) in [
            (Language::English, "en", "You can close this page."),
            (Language::Dutch, "nl", "U kunt deze pagina sluiten."),
        ] {
            let text = escape(&self.message(language));
            let _ = writeln!(body, "<p lang=\"{code}\">{text}<br>{close}</p>");
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"referrer\" content=\"no-referrer\"><title>{title}</title>\n\
             <style>body{{font:1.1em sans-serif;max-width:36em;margin:4em auto;padding:0 1em}}</style></head>\n\
             <body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
        )
    }
}

/// Text in a page: what came from outside must not become part of it.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_both_people_in_both_languages_and_takes_no_markup_from_outside() {
        let outcome = SignInOutcome::WrongIdentity {
            account: "invoices".into(),
            expected: "facturen@contoso.example".into(),
            signed_in: Signer::new("1", "<script>alert('x')</script>\r\nSet-Cookie: a=b"),
        };
        let page = outcome.page();
        assert!(!page.contains("<script") && !page.contains('\r'), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        for says in
            ["Nothing was stored", "Er is niets opgeslagen", "You can close this page", "U kunt deze pagina sluiten"]
        {
            assert!(page.contains(says), "{says}");
        }
        assert_eq!(page.matches("facturen@contoso.example").count(), 4);
    }
}
