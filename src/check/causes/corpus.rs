//! A labelled corpus: what services answer, read by the code that reads it in earnest, and what it means.

use std::collections::HashSet;

use super::*;
use crate::{
    auth,
    provider::{graph, imap},
};
use Answer::{Entra, Graph, Imap, Own, Page, Refused, Token};
use StepId::{FoldersDiffer, ImportFolder, Mailbox, Permissions, ProcessedFolder, Settings};

/// An answer, as it comes over the wire.
enum Answer {
    /// The sign-in service's: OAuth error and AADSTS code.
    Entra(&'static str, u64),
    /// Graph's, about the mailbox, a folder or the directory: status, code and message.
    Graph(&'static str, u16, &'static str, &'static str),
    /// Something else than Graph's JSON, with this status.
    Page(u16),
    /// An IMAP server's refusal of a password, from this host.
    Imap(&'static str, &'static str),
    /// Of a token.
    Token(&'static str),
    /// Of a command.
    Refused(&'static str),
    /// What the crate itself says where there is no answer.
    Own(ErrorKind, &'static str),
}

impl Answer {
    fn error(&self) -> Error {
        const HOST: &str = "outlook.office365.com";
        match self {
            Self::Entra(error, code) => auth::refusal_of(error, *code),
            Self::Graph(about, status, code, message) => {
                let body = serde_json::json!({ "error": { "code": code, "message": message } });
                graph::refusal_of(about, *status, &body.to_string())
            }
            Self::Page(status) => graph::refusal_of("mailbox", *status, "<html>Sign in to the network</html>"),
            Self::Imap(text, host) => imap::refusal_of_sign_in(text, host, false),
            Self::Token(text) => imap::refusal_of_sign_in(text, HOST, true),
            Self::Refused(text) => imap::refusal_of("SELECT", imap::Condition::Bad, text),
            Self::Own(kind, text) => Error::new(*kind, *text),
        }
    }
}

const DENIED: Answer = Graph("mailbox", 403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.");
const NOT_HOSTED: Answer = Graph(
    "mailbox",
    404,
    "MailboxNotEnabledForRESTAPI",
    "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
);

#[rustfmt::skip]
static CORPUS: &[(Cause, StepId, Option<Seen>, Answer)] = &[
    // What else is known decides.
    (Cause::NoLicence, Mailbox, Some(Seen::NoLicence), NOT_HOSTED),
    (Cause::LicenceLag, Mailbox, Some(Seen::JustLicensed), NOT_HOSTED),
    (Cause::OnPremises, Mailbox, Some(Seen::OnPremises), NOT_HOSTED),
    (Cause::PermissionWrongKind, Mailbox, Some(Seen::NoPermission), DENIED),
    (Cause::RbacScope, Mailbox, Some(Seen::OtherMailboxOpens), DENIED),
    (Cause::SharedRightsMissing, Mailbox, Some(Seen::PersonNotLetIn), DENIED),
    // Microsoft's sign-in service.
    (Cause::SecretWrong, Mailbox, None, Entra("invalid_client", 7000215)),
    (Cause::SecretWrong, Mailbox, None, Entra("invalid_request", 7000218)),
    (Cause::SecretExpired, Mailbox, None, Entra("invalid_client", 7000222)),
    (Cause::CertificateRejected, Mailbox, None, Entra("invalid_client", 700027)),
    (Cause::CertificateRejected, Mailbox, None, Entra("invalid_client", 50012)),
    (Cause::CertificateRejected, Mailbox, None, Entra("invalid_client", 70021)),
    (Cause::CertificateRejected, Mailbox, None, Entra("invalid_client", 700213)),
    (Cause::ClockSkew, Mailbox, None, Entra("invalid_client", 700024)),
    (Cause::TenantUnknown, Mailbox, None, Entra("invalid_request", 90002)),
    (Cause::TenantUnknown, Mailbox, None, Entra("invalid_request", 900023)),
    (Cause::TenantUnknown, Mailbox, None, Entra("invalid_request", 50194)),
    (Cause::TenantUnknown, Mailbox, None, Entra("invalid_request", 9001023)),
    (Cause::TenantUnknown, Mailbox, None, Entra("invalid_request", 90130)),
    (Cause::TenantUnknown, Mailbox, None, Entra("invalid_request", 90124)),
    (Cause::WrongCloud, Mailbox, None, Entra("invalid_request", 90038)),
    (Cause::WrongCloud, Mailbox, None, Entra("invalid_resource", 500011)),
    (Cause::WrongCloud, Mailbox, None, Entra("invalid_client", 900382)),
    (Cause::WrongCloud, Mailbox, None, Entra("invalid_client", 900432)),
    (Cause::ClientIdUnknown, Mailbox, None, Entra("unauthorized_client", 700016)),
    (Cause::RedirectUri, Mailbox, None, Entra("invalid_request", 50011)),
    (Cause::RedirectUri, Mailbox, None, Entra("invalid_request", 900971)),
    (Cause::RedirectUri, Mailbox, None, Entra("invalid_request", 9002325)),
    (Cause::RedirectUri, Mailbox, None, Entra("invalid_request", 9002327)),
    (Cause::RedirectUri, Mailbox, None, Entra("invalid_grant", 700084)),
    (Cause::RedirectUri, Mailbox, None, Entra("invalid_client", 700025)),
    (Cause::NoLicence, Mailbox, None, Entra("invalid_request", 650052)),
    (Cause::SettingsWrong, Mailbox, None, Entra("invalid_scope", 70011)),
    (Cause::SettingsWrong, Mailbox, None, Entra("invalid_scope", 1002012)),
    (Cause::SettingsWrong, Mailbox, None, Entra("invalid_request", 28000)),
    (Cause::SettingsWrong, Mailbox, None, Entra("invalid_request", 700022)),
    (Cause::SettingsWrong, Mailbox, None, Entra("invalid_request", 9002313)),
    (Cause::SettingsWrong, Mailbox, None, Entra("invalid_request", 900144)),
    (Cause::SettingsWrong, Mailbox, None, Entra("invalid_request", 90014)),
    (Cause::Proxy, Mailbox, None, Entra("invalid_request", 900561)),
    (Cause::RegistrationDisabled, Mailbox, None, Entra("unauthorized_client", 7000112)),
    (Cause::ConsentMissing, Mailbox, None, Entra("invalid_grant", 65001)),
    (Cause::ConsentMissing, Mailbox, None, Entra("access_denied", 65004)),
    (Cause::ConsentMissing, Mailbox, None, Entra("invalid_request", 650056)),
    (Cause::ConsentMissing, Mailbox, None, Entra("invalid_resource", 650057)),
    (Cause::ConsentMissing, Mailbox, None, Entra("invalid_resource", 65005)),
    (Cause::ConsentPending, Mailbox, None, Entra("invalid_request", 90094)),
    (Cause::ConsentPending, Mailbox, None, Entra("invalid_request", 90095)),
    (Cause::ConditionalAccess, Mailbox, None, Entra("invalid_grant", 53003)),
    (Cause::ConditionalAccess, Mailbox, None, Entra("interaction_required", 53000)),
    (Cause::ConditionalAccess, Mailbox, None, Entra("interaction_required", 53001)),
    (Cause::ConditionalAccess, Mailbox, None, Entra("invalid_grant", 530032)),
    (Cause::ConditionalAccess, Mailbox, None, Entra("invalid_grant", 530035)),
    (Cause::ConditionalAccess, Mailbox, None, Graph("mailbox", 403, "insufficient_claims", "Continuous access evaluation")),
    (Cause::MfaRequired, Mailbox, None, Entra("interaction_required", 50076)),
    (Cause::MfaRequired, Mailbox, None, Entra("interaction_required", 50079)),
    (Cause::MfaRequired, Mailbox, None, Entra("interaction_required", 50072)),
    (Cause::MfaRequired, Mailbox, None, Entra("interaction_required", 50074)),
    (Cause::MfaRequired, Mailbox, None, Entra("interaction_required", 50158)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 70008)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 700082)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 50173)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 70043)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 50132)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 50133)),
    (Cause::SignInNeeded, Mailbox, None, Entra("interaction_required", 50058)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 70000)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 50089)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 501481)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 54005)),
    (Cause::SignInNeeded, Mailbox, None, Entra("invalid_grant", 999999)),
    (Cause::WrongIdentity, Mailbox, None, Entra("invalid_grant", 50020)),
    (Cause::WrongIdentity, Mailbox, None, Entra("interaction_required", 16000)),
    (Cause::WrongIdentity, Mailbox, None, Entra("invalid_grant", 50034)),
    (Cause::WrongIdentity, Mailbox, None, Entra("invalid_grant", 50105)),
    (Cause::PasswordWrong, Mailbox, None, Entra("invalid_grant", 50126)),
    (Cause::PasswordExpired, Mailbox, None, Entra("invalid_grant", 50055)),
    (Cause::AccountLocked, Mailbox, None, Entra("invalid_grant", 50053)),
    (Cause::AccountLocked, Mailbox, None, Entra("invalid_grant", 50057)),
    (Cause::Throttled, Mailbox, None, Entra("invalid_grant", 50196)),
    (Cause::Throttled, Mailbox, None, Entra("invalid_request", 90055)),
    (Cause::ServiceDown, Mailbox, None, Entra("temporarily_unavailable", 90033)),
    // Graph.
    (Cause::PermissionLacking, Mailbox, None, DENIED),
    (Cause::PermissionLacking, Permissions, None, DENIED),
    (Cause::PolicyExcludesMailbox, Mailbox, None, Graph("mailbox", 403, "ErrorAccessDenied", "Access to OData is disabled.")),
    (Cause::PolicyExcludesMailbox, Mailbox, None, Graph("mailbox", 403, "ErrorAccessDenied", "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.")),
    (Cause::SharedRightsMissing, Mailbox, None, Graph("mailbox", 404, "ErrorItemNotFound", "Default folder Root not found.")),
    (Cause::SharedRightsMissing, Mailbox, None, Graph("mailbox", 404, "ErrorFolderNotFound", "The specified folder could not be found in the store.")),
    (Cause::MailboxUnknown, Mailbox, None, Graph("mailbox", 404, "ErrorInvalidUser", "The requested user 'a@b.nl' is invalid.")),
    (Cause::MailboxUnknown, Mailbox, None, Graph("mailbox", 404, "Request_ResourceNotFound", "Resource 'a@b.nl' does not exist")),
    (Cause::MailboxUnknown, Mailbox, None, Graph("mailbox", 404, "ErrorNonExistentMailbox", "The SMTP address has no mailbox associated with it.")),
    (Cause::MailboxNotHosted, Mailbox, None, NOT_HOSTED),
    (Cause::MailboxNotHosted, Mailbox, None, Graph("mailbox", 404, "MailboxNotSupportedForRESTAPI", "REST API is not yet supported for this mailbox.")),
    (Cause::MailboxNotHosted, Mailbox, None, Graph("mailbox", 404, "ResourceNotFound", "Resource could not be discovered.")),
    (Cause::FolderMissing, ImportFolder, None, Graph("folder", 404, "ErrorItemNotFound", "The specified object was not found in the store.")),
    (Cause::SignInRefused, Mailbox, None, Graph("mailbox", 401, "InvalidAuthenticationToken", "CompactToken parsing failed with error code: 80049217")),
    (Cause::Throttled, Mailbox, None, Graph("mailbox", 429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")),
    (Cause::ServiceDown, Mailbox, None, Graph("mailbox", 503, "UnknownError", "")),
    (Cause::NoAnswer, Mailbox, None, Graph("mailbox", 504, "UnknownError", "")),
    (Cause::Unknown, Mailbox, None, Graph("mailbox", 418, "ErrorNew", "Something new.")),
    (Cause::Proxy, Mailbox, None, Page(502)),
    (Cause::Proxy, Mailbox, None, Page(407)),
    (Cause::Proxy, Mailbox, None, Page(302)),
    (Cause::Proxy, Mailbox, None, Page(404)),
    // IMAP servers.
    (Cause::PasswordWrong, Mailbox, None, Imap("[AUTHENTICATIONFAILED] Authentication failed.", "mail.contoso.nl")),
    (Cause::PasswordWrong, Mailbox, None, Token("[AUTHENTICATIONFAILED] Authentication failed.")),
    (Cause::SharedRightsMissing, Mailbox, None, Token("[AUTHORIZATIONFAILED] not yours")),
    (Cause::PasswordExpired, Mailbox, None, Imap("[EXPIRED] Password expired.", "mail.contoso.nl")),
    (Cause::NeedsTls, Mailbox, None, Imap("[PRIVACYREQUIRED] Plaintext authentication disallowed", "mail.contoso.nl")),
    (Cause::AccountLocked, Mailbox, None, Imap("[CONTACTADMIN] Account disabled.", "mail.contoso.nl")),
    (Cause::SignInNeeded, Mailbox, None, Imap("[WEBALERT https://accounts.example/x] Web login required.", "imap.gmail.com")),
    (Cause::AppPassword, Mailbox, None, Imap("[ALERT] Application-specific password required", "imap.gmail.com")),
    (Cause::ImapDisabled, Mailbox, None, Imap("[ALERT] Your account is not enabled for IMAP use. (Failure)", "imap.gmail.com")),
    (Cause::ImapDisabled, Mailbox, None, Imap("[ALERT] IMAP access is disabled for your domain. (Failure)", "imap.gmail.com")),
    (Cause::BasicAuthOff, Mailbox, None, Imap("Basic authentication is disabled.", "outlook.office365.com")),
    (Cause::BasicAuthOff, Mailbox, None, Imap("LOGIN failed.", "outlook.office365.com")),
    (Cause::AccountLocked, Mailbox, None, Imap("Account is blocked. Login to your account via a web browser", "imap-mail.outlook.com")),
    (Cause::SignInRefused, Mailbox, None, Imap("LOGIN failed.", "mail.contoso.nl")),
    (Cause::SignInRefused, Mailbox, None, Token("AUTHENTICATE failed.")),
    (Cause::SignInRefused, Mailbox, None, Imap("Login failed: authentication failure", "mail.contoso.nl")),
    (Cause::ConnectionLimit, Mailbox, None, Imap("[UNAVAILABLE] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)", "mail.contoso.nl")),
    (Cause::ConnectionLimit, Mailbox, None, Imap("[ALERT] Too many simultaneous connections. (Failure)", "imap.gmail.com")),
    (Cause::Throttled, Mailbox, None, Imap("Request is throttled. Suggested Backoff Time: 5000 milliseconds", "outlook.office365.com")),
    (Cause::ServiceDown, Mailbox, None, Imap("[UNAVAILABLE] Temporary authentication failure.", "mail.contoso.nl")),
    (Cause::NotConnected, Mailbox, None, Refused("User is authenticated but not connected.")),
    // Where nobody answers, and what the crate refuses by itself.
    (Cause::DnsFailed, Mailbox, None, Own(ErrorKind::Unavailable, "no connection to x:993: failed to lookup address information: Name or service not known")),
    (Cause::DnsFailed, Mailbox, None, Own(ErrorKind::Unavailable, "`x` cannot be reached: client error (Connect): dns error: no record found")),
    (Cause::DnsFailed, Mailbox, None, Own(ErrorKind::Unavailable, "no connection to x:993: No such host is known. (os error 11001)")),
    (Cause::ConnectionRefused, Mailbox, None, Own(ErrorKind::Unavailable, "no connection to x:993: Connection refused (os error 111)")),
    (Cause::TlsName, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: invalid peer certificate: certificate not valid for name \"x\"")),
    (Cause::TlsName, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: invalid peer certificate: NotValidForName")),
    (Cause::TlsExpired, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: invalid peer certificate: certificate expired: verified at 1")),
    (Cause::TlsExpired, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: invalid peer certificate: Expired")),
    (Cause::TlsUnknownCa, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: invalid peer certificate: UnknownIssuer")),
    (Cause::TlsUnknownCa, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: unknown issuer")),
    (Cause::TlsUnknownCa, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: self-signed certificate")),
    (Cause::NeedsTls, Mailbox, None, Own(ErrorKind::InvalidConfig, "x does not speak TLS as expected; check `port` and `tls`")),
    (Cause::NeedsTls, Mailbox, None, Own(ErrorKind::InvalidConfig, "the server does not offer STARTTLS on this port; use `tls = \"implicit\"` with port 993")),
    (Cause::NeedsTls, Mailbox, None, Own(ErrorKind::InvalidConfig, "x accepts passwords only over TLS; set `tls` to `implicit` or `starttls`")),
    (Cause::BasicAuthOff, Mailbox, None, Own(ErrorKind::InvalidConfig, "sign-in with a password is switched off on x; use `oauth` for this account")),
    (Cause::Proxy, Mailbox, None, Own(ErrorKind::Unavailable, "the sign-in service answered 200 with text/html instead of its JSON; a proxy or network portal may stand in between")),
    (Cause::Proxy, Mailbox, None, Own(ErrorKind::InvalidConfig, "the proxy asks for a user name and password; write them into the URL in `proxy`")),
    (Cause::SecretMissing, Settings, None, Own(ErrorKind::InvalidConfig, "`password` is read from the environment variable `X`, which is not set")),
    (Cause::SecretMissing, Mailbox, None, Own(ErrorKind::InvalidConfig, "`password` is read from the file `x`, which cannot be read: No such file")),
    (Cause::SecretIsId, Settings, None, Own(ErrorKind::InvalidConfig, "`client_secret` looks like the secret's ID; write its value")),
    (Cause::SettingsWrong, Settings, None, Own(ErrorKind::InvalidConfig, "`accounts.a.host` is a URL; write only the server's name")),
    (Cause::SettingsWrong, Settings, None, Own(ErrorKind::Unsupported, "the provider `graph` is not built into this program")),
    (Cause::FolderMissing, ImportFolder, None, Own(ErrorKind::NotFound, "there is no folder `Inbox/Procesed`; the mailbox has `Inbox`")),
    (Cause::FolderAmbiguous, ImportFolder, None, Own(ErrorKind::InvalidConfig, "the folder `x` is ambiguous: there are `X` and `x`")),
    (Cause::FolderReadOnly, ProcessedFolder, None, Own(ErrorKind::PermissionDenied, "the folder `Archive` is read-only for this account")),
    (Cause::FolderNoMail, ImportFolder, None, Own(ErrorKind::InvalidConfig, "the folder `x` holds no messages")),
    (Cause::FolderReadOnly, ProcessedFolder, None, Graph("folder", 403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")),
    // As a run says it, that knows of no steps.
    (Cause::FolderMissing, Mailbox, None, Own(ErrorKind::NotFound, "there is no folder `Inbox/Procesed`; the mailbox has `Inbox`")),
    (Cause::FolderReadOnly, Mailbox, None, Own(ErrorKind::PermissionDenied, "the folder `Archive` (`processed_folder` of job `a`) is read-only for this account, but mail is to be moved")),
    (Cause::FolderSame, Mailbox, None, Own(ErrorKind::InvalidConfig, "the folder `Inbox` (`processed_folder` of job `a`) is the import folder itself; name another folder")),
    (Cause::FolderNoMail, Mailbox, None, Own(ErrorKind::InvalidConfig, "the folder `Ongelezen` (`processed_folder` of job `a`) holds no messages of its own; name another folder")),
    (Cause::FolderSame, FoldersDiffer, None, Own(ErrorKind::InvalidConfig, "`processed_folder` is the import folder itself")),
    (Cause::MailboxUnknown, Mailbox, None, Own(ErrorKind::MailboxGone, "the Maildir is gone")),
    (Cause::MailboxUnknown, Mailbox, None, Own(ErrorKind::NotFound, "there is no Maildir at `/srv/mail`; correct `path`, or make one with `mkdir -p /srv/mail/{cur,new,tmp}`")),
    (Cause::TlsUnknownCa, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: invalid peer certificate: BadSignature")),
    (Cause::TlsUnknownCa, Mailbox, None, Own(ErrorKind::InvalidConfig, "the certificate of x is not trusted: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))")),
    (Cause::SignInNeeded, Mailbox, None, Own(ErrorKind::SignInNeeded, "nobody has signed in yet")),
    (Cause::NoAnswer, Mailbox, None, Own(ErrorKind::Timeout, "there was no answer within 40 s")),
];

#[test]
fn every_answer_meets_one_rule_and_every_rule_an_answer() {
    let (mut met, mut reached, mut codes, mut texts) = (HashSet::new(), HashSet::new(), HashSet::new(), String::new());
    for (cause, step, seen, answer) in CORPUS {
        let error = answer.error();
        let text = error.chain().to_string();
        let rules = deciding(&error, *step, *seen);
        assert_eq!(of(&error, *step, *seen), *cause, "{:?} {text}", error.code());
        assert_eq!(rules.len(), usize::from(*cause != Cause::Unknown), "{cause:?}: {text}");
        met.extend(rules.iter().map(|rule| std::ptr::from_ref::<Rule>(rule)));
        reached.insert(*cause);
        codes.extend(error.code().map(str::to_lowercase));
        texts.push_str(&text.to_lowercase());
    }
    for rule in RULES.iter().flat_map(|part| part.iter()) {
        assert!(met.contains(&std::ptr::from_ref(rule)), "no answer reaches the rule of {:?}", rule.cause);
        for code in rule.codes {
            assert!(codes.contains(&code.to_lowercase()), "no answer has the code {code}");
        }
        for words in rule.says {
            assert!(texts.contains(words), "no answer says \"{words}\"");
        }
    }
    for cause in Cause::ALL {
        // A hint about what works: no answer of a service brings it up.
        assert_eq!(reached.contains(cause), *cause != Cause::PermissionSurplus, "{cause:?}");
    }
}

#[test]
fn no_code_stands_twice() {
    let mut codes: Vec<_> = RULES.iter().flat_map(|part| part.iter()).flat_map(|rule| rule.codes).collect();
    codes.sort_unstable();
    assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
    let codes: HashSet<_> = Cause::ALL.iter().map(|cause| cause.code()).collect();
    assert_eq!(codes.len(), Cause::ALL.len());
}
