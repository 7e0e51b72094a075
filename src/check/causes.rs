//! Causes, and the one table from what accounts answer to what is wrong.

use super::StepId;
use crate::{Error, ErrorKind};

/// Who repairs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Who {
    /// Whoever writes the configuration.
    You,
    /// The administrator of the network or of the Microsoft 365 tenant.
    ItAdmin,
    /// The administrator of Exchange, or of the mail server.
    ExchangeAdmin,
    /// The maker of this program, or the service itself.
    Vendor,
}

impl Who {
    /// The stable name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::You => "you",
            Self::ItAdmin => "it-admin",
            Self::ExchangeAdmin => "exchange-admin",
            Self::Vendor => "vendor",
        }
    }
}

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $cause:ident = $code:literal, $who:ident, $stop:ident;)+) => {
        /// Why a step failed. Closed, so that each has a text; more may come.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Cause { $($(#[doc = $doc])+ $cause,)+ }

        impl Cause {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$cause),+];

            /// The stable code used in JSON and in the documentation.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$cause => $code,)+ }
            }

            /// Who repairs it.
            #[must_use]
            pub const fn who(self) -> Who {
                match self { $(Self::$cause => Who::$who,)+ }
            }

            /// On the way to the mailbox, the step that it stops.
            const fn step(self) -> StepId {
                match self { $(Self::$cause => StepId::$stop,)+ }
            }
        }
    };
}

causes! {
    /// A value in the configuration cannot be right.
    SettingsWrong = "settings_wrong", You, Settings;
    /// A variable or secret file is missing.
    SecretMissing = "secret_missing", You, Settings;
    /// The secret's ID stands where its value should.
    SecretIsId = "secret_is_id", You, Settings;
    /// The server's name is unknown.
    DnsFailed = "dns_failed", You, Reach;
    /// Nothing listens there, or a firewall refuses.
    ConnectionRefused = "connection_refused", ItAdmin, Reach;
    /// The certificate is for another name.
    TlsName = "tls_name", You, Reach;
    /// The certificate has expired.
    TlsExpired = "tls_expired", ItAdmin, Reach;
    /// The certificate's issuer is not trusted.
    TlsUnknownCa = "tls_unknown_ca", ItAdmin, Reach;
    /// The server wants TLS, or does not speak it there.
    NeedsTls = "needs_tls", You, Reach;
    /// A proxy stands in between.
    Proxy = "proxy", ItAdmin, Reach;
    /// This machine's clock is wrong.
    ClockSkew = "clock_skew", ItAdmin, SignIn;
    /// There is no such tenant.
    TenantUnknown = "tenant_unknown", You, SignIn;
    /// The tenant belongs to another cloud.
    WrongCloud = "wrong_cloud", You, SignIn;
    /// The tenant has no such application.
    ClientIdUnknown = "client_id_unknown", You, SignIn;
    /// The client secret is wrong.
    SecretWrong = "secret_wrong", You, SignIn;
    /// The client secret has expired.
    SecretExpired = "secret_expired", ItAdmin, SignIn;
    /// The certificate is not accepted.
    CertificateRejected = "certificate_rejected", ItAdmin, SignIn;
    /// The redirect URI is not registered.
    RedirectUri = "redirect_uri", ItAdmin, SignIn;
    /// The application is disabled.
    RegistrationDisabled = "registration_disabled", ItAdmin, SignIn;
    /// Nobody has consented.
    ConsentMissing = "consent_missing", ItAdmin, SignIn;
    /// An administrator's consent is awaited.
    ConsentPending = "consent_pending", ItAdmin, SignIn;
    /// A policy blocks the sign-in.
    ConditionalAccess = "conditional_access", ItAdmin, SignIn;
    /// A further proof of identity is asked for.
    MfaRequired = "mfa_required", You, SignIn;
    /// Somebody must sign in again.
    SignInNeeded = "sign_in_needed", You, SignIn;
    /// Another person than expected has signed in.
    WrongIdentity = "wrong_identity", You, SignIn;
    /// User name or password is wrong.
    PasswordWrong = "password_wrong", You, SignIn;
    /// The password has expired.
    PasswordExpired = "password_expired", You, SignIn;
    /// The account is locked or disabled.
    AccountLocked = "account_locked", ItAdmin, SignIn;
    /// The service wants an app password.
    AppPassword = "app_password", You, SignIn;
    /// Signing in with a password is switched off.
    BasicAuthOff = "basic_auth_off", You, SignIn;
    /// Refused, and the server does not say why.
    SignInRefused = "sign_in_refused", You, SignIn;
    /// Signed in, but the mailbox was not opened.
    NotConnected = "not_connected", ExchangeAdmin, Mailbox;
    /// Too many connections at once.
    ConnectionLimit = "connection_limit", You, SignIn;
    /// There is no such mailbox.
    MailboxUnknown = "mailbox_unknown", You, Mailbox;
    /// The mailbox is not in Exchange Online: no licence, too new, or on-premises.
    MailboxNotHosted = "mailbox_not_hosted", ItAdmin, Mailbox;
    /// The permission is missing, or is of the wrong kind, or a role's scope leaves the mailbox out.
    PermissionLacking = "permission_lacking", ItAdmin, Mailbox;
    /// An application access policy excludes the mailbox.
    PolicyExcludesMailbox = "policy_excludes_mailbox", ExchangeAdmin, Mailbox;
    /// The person has no rights on the shared mailbox.
    SharedRightsMissing = "shared_rights_missing", ExchangeAdmin, Mailbox;
    /// The folder is not there.
    FolderMissing = "folder_missing", You, Mailbox;
    /// The name fits several folders.
    FolderAmbiguous = "folder_ambiguous", You, Mailbox;
    /// The folder cannot be written to.
    FolderReadOnly = "folder_read_only", ExchangeAdmin, Mailbox;
    /// Mail would be moved to where it is read from.
    FolderSame = "folder_same", You, Mailbox;
    /// The folder holds no messages.
    FolderNoMail = "folder_no_mail", You, Mailbox;
    /// The service asks for a pause.
    Throttled = "throttled", Vendor, Reach;
    /// The service cannot be reached or is failing.
    ServiceDown = "service_down", Vendor, Reach;
    /// There was no answer in time.
    NoAnswer = "no_answer", ItAdmin, Reach;
    /// The answer is not known here; its text is kept.
    Unknown = "unknown", Vendor, Mailbox;
}

impl Cause {
    /// On the way to the mailbox, how far the call came that ended so.
    pub(super) fn stops_at(self, error: &Error) -> StepId {
        match (self, error.kind()) {
            (Self::Unknown, ErrorKind::Unauthenticated | ErrorKind::SignInNeeded) => StepId::SignIn,
            (Self::Unknown, ErrorKind::InvalidConfig) => StepId::Settings,
            _ => self.step(),
        }
    }
}

/// What an error must show for a rule to apply; what is empty does not matter.
struct Rule {
    cause: Cause,
    codes: &'static [&'static str],
    /// One of these, in the error or its sources, ignoring case.
    says: &'static [&'static str],
    kinds: &'static [ErrorKind],
    steps: &'static [StepId],
}

const fn code(cause: Cause, codes: &'static [&'static str]) -> Rule {
    Rule { cause, codes, says: &[], kinds: &[], steps: &[] }
}

const fn says(cause: Cause, says: &'static [&'static str]) -> Rule {
    Rule { cause, codes: &[], says, kinds: &[], steps: &[] }
}

const fn kind(cause: Cause, kinds: &'static [ErrorKind]) -> Rule {
    Rule { cause, codes: &[], says: &[], kinds, steps: &[] }
}

const FOLDERS: &[StepId] = &[StepId::ImportFolder, StepId::ProcessedFolder, StepId::FailedFolder];

/// The table, in three parts: by the service's code, by words, by kind. The first part with a rule that applies decides,
/// and no answer that is known meets two rules of one part.
static RULES: [&[Rule]; 3] = [
    &[
        code(Cause::SecretWrong, &["AADSTS7000215", "AADSTS7000218"]),
        code(Cause::SecretExpired, &["AADSTS7000222"]),
        code(Cause::CertificateRejected, &["AADSTS700027", "AADSTS50012"]),
        code(Cause::ClockSkew, &["AADSTS700024"]),
        code(Cause::TenantUnknown, &["AADSTS90002", "AADSTS900023", "AADSTS50194", "AADSTS9001023", "AADSTS90130"]),
        code(Cause::WrongCloud, &["AADSTS90038", "AADSTS500011", "AADSTS900382", "AADSTS900432"]),
        code(Cause::ClientIdUnknown, &["AADSTS700016"]),
        code(Cause::RedirectUri, &["AADSTS50011", "AADSTS900971", "AADSTS9002325", "AADSTS9002327"]),
        code(Cause::RegistrationDisabled, &["AADSTS7000112"]),
        code(Cause::ConsentMissing, &["AADSTS65001", "AADSTS65004", "AADSTS650056", "AADSTS650057", "AADSTS65005"]),
        code(Cause::ConsentPending, &["AADSTS90094", "AADSTS90095"]),
        code(
            Cause::ConditionalAccess,
            &["AADSTS53003", "AADSTS53000", "AADSTS53001", "AADSTS530032", "AADSTS530035", "insufficient_claims"],
        ),
        code(Cause::MfaRequired, &["AADSTS50076", "AADSTS50079", "AADSTS50072", "AADSTS50074", "AADSTS50158"]),
        code(
            Cause::SignInNeeded,
            &[
                "AADSTS70008",
                "AADSTS700082",
                "AADSTS50173",
                "AADSTS70043",
                "AADSTS50132",
                "AADSTS50133",
                "AADSTS50058",
                "WEBALERT",
            ],
        ),
        code(Cause::WrongIdentity, &["AADSTS50020", "AADSTS16000", "AADSTS50034", "AADSTS50105"]),
        code(Cause::PasswordWrong, &["AADSTS50126", "AUTHENTICATIONFAILED"]),
        code(Cause::PasswordExpired, &["AADSTS50055", "EXPIRED"]),
        code(Cause::AccountLocked, &["AADSTS50053", "AADSTS50057", "CONTACTADMIN"]),
        code(Cause::NeedsTls, &["PRIVACYREQUIRED"]),
        Rule {
            kinds: &[ErrorKind::PermissionDenied],
            ..code(Cause::SharedRightsMissing, &["AUTHORIZATIONFAILED", "ErrorItemNotFound", "ErrorFolderNotFound"])
        },
        code(Cause::MailboxUnknown, &["ErrorInvalidUser", "Request_ResourceNotFound", "ErrorNonExistentMailbox"]),
        code(
            Cause::MailboxNotHosted,
            &["MailboxNotEnabledForRESTAPI", "MailboxNotSupportedForRESTAPI", "ResourceNotFound"],
        ),
    ],
    &[
        says(Cause::SecretIsId, &["secret's id"]),
        says(Cause::SecretMissing, &["environment variable", "which cannot be read"]),
        says(Cause::DnsFailed, &["failed to lookup address", "dns error", "name or service not known", "no such host"]),
        says(Cause::ConnectionRefused, &["connection refused"]),
        says(Cause::TlsName, &["not valid for name", "notvalidforname"]),
        says(Cause::TlsExpired, &["certificate expired", "certificate: expired"]),
        says(
            Cause::TlsUnknownCa,
            &["unknownissuer", "unknown issuer", "self-signed", "not trusted by", "badsignature", "causedasendentity"],
        ),
        says(Cause::NeedsTls, &["does not speak tls", "does not offer starttls", "only over tls"]),
        says(Cause::Proxy, &["proxy or gateway may", "proxy or network portal", "proxy asks", "the proxy"]),
        says(Cause::PolicyExcludesMailbox, &["application access policy"]),
        says(
            Cause::BasicAuthOff,
            &[
                "password is switched off on",
                "password is switched off for this",
                "has retired sign-in with a password",
            ],
        ),
        says(Cause::AppPassword, &["wants an app password"]),
        says(Cause::AccountLocked, &["account is blocked"]),
        says(Cause::SignInRefused, &["it cannot be told apart whether", "likely causes: the token"]),
        says(Cause::NotConnected, &["mailbox was not opened"]),
        says(Cause::ConnectionLimit, &["maximum number of connections", "too many simultaneous connections"]),
        says(Cause::FolderSame, &["is the import folder itself"]),
        says(Cause::FolderNoMail, &["holds no messages"]),
        says(Cause::FolderAmbiguous, &["is ambiguous"]),
    ],
    &[
        Rule { steps: FOLDERS, ..kind(Cause::FolderMissing, &[ErrorKind::NotFound]) },
        Rule { steps: FOLDERS, ..kind(Cause::FolderReadOnly, &[ErrorKind::PermissionDenied]) },
        Rule {
            steps: &[StepId::Settings, StepId::Mailbox, StepId::Permissions],
            ..kind(Cause::PermissionLacking, &[ErrorKind::PermissionDenied])
        },
        kind(Cause::SettingsWrong, &[ErrorKind::InvalidConfig, ErrorKind::Unsupported]),
        kind(Cause::MailboxUnknown, &[ErrorKind::MailboxGone]),
        Rule { steps: &[StepId::Mailbox], ..kind(Cause::MailboxUnknown, &[ErrorKind::NotFound]) },
        kind(Cause::SignInRefused, &[ErrorKind::Unauthenticated]),
        kind(Cause::SignInNeeded, &[ErrorKind::SignInNeeded]),
        kind(Cause::Throttled, &[ErrorKind::Throttled]),
        kind(Cause::ServiceDown, &[ErrorKind::Unavailable]),
        kind(Cause::NoAnswer, &[ErrorKind::Timeout]),
    ],
];

impl Rule {
    fn applies(&self, error: &Error, text: &str, step: StepId) -> bool {
        let code = error.code().unwrap_or_default();
        (self.codes.is_empty() || self.codes.iter().any(|c| c.eq_ignore_ascii_case(code)))
            && (self.says.is_empty() || self.says.iter().any(|words| text.contains(words)))
            && (self.kinds.is_empty() || self.kinds.contains(&error.kind()))
            && (self.steps.is_empty() || self.steps.contains(&step))
    }
}

/// The rules that decide.
fn deciding(error: &Error, step: StepId) -> Vec<&'static Rule> {
    let text = error.chain().to_string().to_lowercase();
    let parts =
        RULES.iter().map(|part| part.iter().filter(|rule| rule.applies(error, &text, step)).collect::<Vec<_>>());
    parts.into_iter().find(|rules| !rules.is_empty()).unwrap_or_default()
}

/// What an error means at this step.
pub(super) fn of(error: &Error, step: StepId) -> Cause {
    deciding(error, step).first().map_or(Cause::Unknown, |rule| rule.cause)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn error(kind: ErrorKind, code: &str, text: &str) -> Error {
        let error = Error::new(kind, text.to_owned());
        if code.is_empty() { error } else { error.with_code(code) }
    }

    /// What accounts answer, in their own words, and what it means.
    #[test]
    fn every_answer_meets_one_rule() {
        use ErrorKind::*;
        use StepId::{FoldersDiffer, ImportFolder, Mailbox, Permissions, ProcessedFolder};
        let corpus: &[(Cause, StepId, ErrorKind, &str, &str)] = &[
            (
                Cause::PermissionLacking,
                Mailbox,
                PermissionDenied,
                "ErrorAccessDenied",
                "the app may not do this in `a@b.nl`",
            ),
            (Cause::PermissionLacking, Permissions, PermissionDenied, "", "the app may not do this in `a@b.nl`"),
            (
                Cause::PolicyExcludesMailbox,
                Mailbox,
                PermissionDenied,
                "ErrorAccessDenied",
                "an application access policy of Exchange keeps this app out of `a@b.nl`",
            ),
            (
                Cause::SharedRightsMissing,
                Mailbox,
                PermissionDenied,
                "ErrorItemNotFound",
                "`a@b.nl` is not shown to whoever signed in",
            ),
            (
                Cause::FolderMissing,
                ImportFolder,
                NotFound,
                "ErrorItemNotFound",
                "there is no such folder in `a@b.nl` (any more)",
            ),
            (
                Cause::FolderMissing,
                ImportFolder,
                NotFound,
                "",
                "there is no folder `Inbox/Procesed`; the mailbox has `Inbox`",
            ),
            (
                Cause::TlsUnknownCa,
                Mailbox,
                InvalidConfig,
                "",
                "the certificate of x is not trusted: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
            ),
            (
                Cause::MailboxUnknown,
                Mailbox,
                NotFound,
                "",
                "there is no Maildir at `/srv/mail`; correct `path`, or make one with `mkdir -p /srv/mail/{cur,new,tmp}`",
            ),
            (
                Cause::FolderAmbiguous,
                ImportFolder,
                InvalidConfig,
                "",
                "the folder `x` is ambiguous: there are `X` and `x`",
            ),
            (
                Cause::FolderReadOnly,
                ProcessedFolder,
                PermissionDenied,
                "",
                "the folder `Archive` is read-only for this account",
            ),
            (Cause::FolderNoMail, ImportFolder, InvalidConfig, "", "the folder `x` holds no messages"),
            (Cause::FolderSame, FoldersDiffer, InvalidConfig, "", "`processed_folder` is the import folder itself"),
            (
                Cause::SettingsWrong,
                Mailbox,
                InvalidConfig,
                "",
                "`accounts.a.host` is a URL; write only the server's name",
            ),
            (Cause::SettingsWrong, Mailbox, Unsupported, "", "the provider `graph` is not built into this program"),
            (
                Cause::SecretMissing,
                Mailbox,
                InvalidConfig,
                "",
                "`password` is read from the environment variable `X`, which is not set",
            ),
            (
                Cause::SecretMissing,
                Mailbox,
                InvalidConfig,
                "",
                "`password` is read from the file `x`, which cannot be read: No such file",
            ),
            (
                Cause::SecretIsId,
                Mailbox,
                InvalidConfig,
                "",
                "`client_secret` looks like the secret's ID; write its value",
            ),
            (
                Cause::DnsFailed,
                Mailbox,
                Unavailable,
                "",
                "no connection to x:993: failed to lookup address information: Name or service not known",
            ),
            (
                Cause::ConnectionRefused,
                Mailbox,
                Unavailable,
                "",
                "no connection to x:993: Connection refused (os error 111)",
            ),
            (
                Cause::TlsName,
                Mailbox,
                InvalidConfig,
                "",
                "the certificate of x is not trusted: invalid peer certificate: certificate not valid for name \"x\"",
            ),
            (
                Cause::TlsExpired,
                Mailbox,
                InvalidConfig,
                "",
                "the certificate of x is not trusted: invalid peer certificate: certificate expired: verified at 1",
            ),
            (
                Cause::TlsUnknownCa,
                Mailbox,
                InvalidConfig,
                "",
                "the certificate of `x` is not trusted; where a proxy or server uses a company's own, name that company's root in `ca_file`: invalid peer certificate: UnknownIssuer",
            ),
            (Cause::NeedsTls, Mailbox, InvalidConfig, "", "x does not speak TLS as expected; check `port` and `tls`"),
            (Cause::NeedsTls, Mailbox, InvalidConfig, "PRIVACYREQUIRED", "the server wants TLS before sign-in"),
            (
                Cause::Proxy,
                Mailbox,
                Unavailable,
                "",
                "Graph's address answered 502 with text/html instead of Graph's JSON; a proxy or gateway may stand in between",
            ),
            (
                Cause::BasicAuthOff,
                Mailbox,
                InvalidConfig,
                "",
                "sign-in with a password is switched off on x; use `oauth` for this account",
            ),
            (
                Cause::BasicAuthOff,
                Mailbox,
                Unauthenticated,
                "",
                "the sign-in was refused, and the server does not say why. Exchange Online has retired sign-in with a password: use `oauth`",
            ),
            (
                Cause::SignInRefused,
                Mailbox,
                Unauthenticated,
                "",
                "the sign-in was refused, and the server does not say why. It cannot be told apart whether the user name or password is wrong, sign-in with a password is switched off, IMAP is switched off for this mailbox, or the account is locked",
            ),
            (
                Cause::SignInRefused,
                Mailbox,
                Unauthenticated,
                "InvalidAuthenticationToken",
                "Graph refused the access token",
            ),
            (Cause::AppPassword, Mailbox, Unauthenticated, "", "the service wants an app password for this account"),
            (
                Cause::AccountLocked,
                Mailbox,
                Unauthenticated,
                "",
                "the account is blocked; its owner must sign in with a browser",
            ),
            (
                Cause::NotConnected,
                Mailbox,
                Unavailable,
                "",
                "the server refused SELECT. The sign-in was accepted, but the mailbox was not opened: IMAP may be off",
            ),
            (
                Cause::ConnectionLimit,
                Mailbox,
                Throttled,
                "UNAVAILABLE",
                "the server cannot sign anybody in just now: \"Maximum number of connections from user+IP exceeded\"",
            ),
            (Cause::MailboxUnknown, Mailbox, MailboxGone, "ErrorInvalidUser", "the tenant has no user `a@b.nl`"),
            (Cause::MailboxUnknown, Mailbox, MailboxGone, "", "the Maildir is gone"),
            (
                Cause::MailboxNotHosted,
                Mailbox,
                MailboxGone,
                "MailboxNotEnabledForRESTAPI",
                "`a@b.nl` has no mailbox in Exchange Online",
            ),
            (Cause::Throttled, Mailbox, Throttled, "ApplicationThrottled", "Graph asks for a pause for `a@b.nl`"),
            (Cause::ServiceDown, Mailbox, Unavailable, "", "Graph has a fault, 503"),
            (Cause::NoAnswer, Mailbox, Timeout, "", "there was no answer within 40 s"),
            (Cause::SignInNeeded, Mailbox, SignInNeeded, "", "nobody has signed in yet"),
            (Cause::Unknown, Mailbox, Other, "ErrorNew", "something new"),
            (Cause::SecretWrong, Mailbox, Unauthenticated, "AADSTS7000215", "sign-in refused"),
            (Cause::SecretExpired, Mailbox, Unauthenticated, "AADSTS7000222", "sign-in refused"),
            (Cause::CertificateRejected, Mailbox, Unauthenticated, "AADSTS700027", "sign-in refused"),
            (Cause::ClockSkew, Mailbox, Unauthenticated, "AADSTS700024", "sign-in refused"),
            (Cause::TenantUnknown, Mailbox, InvalidConfig, "AADSTS90002", "sign-in refused"),
            (Cause::WrongCloud, Mailbox, InvalidConfig, "AADSTS90038", "sign-in refused"),
            (Cause::ClientIdUnknown, Mailbox, InvalidConfig, "AADSTS700016", "sign-in refused"),
            (Cause::RedirectUri, Mailbox, InvalidConfig, "AADSTS50011", "sign-in refused"),
            (Cause::RegistrationDisabled, Mailbox, PermissionDenied, "AADSTS7000112", "sign-in refused"),
            (Cause::ConsentMissing, Mailbox, PermissionDenied, "AADSTS65001", "sign-in refused"),
            (Cause::ConsentPending, Mailbox, PermissionDenied, "AADSTS90094", "sign-in refused"),
            (Cause::ConditionalAccess, Mailbox, PermissionDenied, "AADSTS53003", "sign-in refused"),
            (Cause::MfaRequired, Mailbox, SignInNeeded, "AADSTS50076", "sign-in refused"),
            (Cause::SignInNeeded, Mailbox, SignInNeeded, "AADSTS70008", "sign-in refused"),
            (Cause::WrongIdentity, Mailbox, SignInNeeded, "AADSTS50020", "sign-in refused"),
            (
                Cause::PasswordWrong,
                Mailbox,
                Unauthenticated,
                "AUTHENTICATIONFAILED",
                "the server refused the user name or the password",
            ),
            (Cause::PasswordExpired, Mailbox, Unauthenticated, "EXPIRED", "the password has expired"),
            (Cause::AccountLocked, Mailbox, Unauthenticated, "AADSTS50053", "sign-in refused"),
        ];
        let mut met = HashSet::new();
        for (cause, step, kind, code, text) in corpus {
            let error = error(*kind, code, text);
            let rules = deciding(&error, *step);
            assert_eq!(rules.len(), usize::from(*cause != Cause::Unknown), "{cause:?}: {text}");
            assert_eq!(of(&error, *step), *cause, "{text}");
            met.extend(rules.iter().map(|rule| std::ptr::from_ref::<Rule>(rule)));
        }
        for rule in RULES.iter().flat_map(|part| part.iter()) {
            assert!(met.contains(&std::ptr::from_ref(rule)), "no answer reaches the rule of {:?}", rule.cause);
        }
        let reached: HashSet<_> = corpus.iter().map(|row| row.0).collect();
        for cause in Cause::ALL {
            assert!(reached.contains(cause), "no answer reaches {cause:?}");
        }
    }

    #[test]
    fn no_code_stands_twice() {
        let mut codes: Vec<_> = RULES[0].iter().flat_map(|rule| rule.codes).collect();
        codes.sort_unstable();
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
        let codes: HashSet<_> = Cause::ALL.iter().map(|cause| cause.code()).collect();
        assert_eq!(codes.len(), Cause::ALL.len());
    }
}
