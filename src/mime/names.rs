//! File names: what a sender called an attachment, and what it may be called on a disk.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

use super::{
    header::{self, Field},
    params::Parameters,
    words,
};

/// Characters of a sender's name that are kept. No file system takes more than 255.
pub(crate) const LONGEST_NAME: usize = 1024;

/// Bytes of a name on a disk: room for a suffix and a temporary extension within the 255 of most file systems, and for
/// encryption layers that allow 143 characters.
const LONGEST_FILE_NAME: usize = 150;

/// The name in the parameters of dispositions and type: `filename*`, `filename`, `name*`, `name`.
pub(crate) fn from_parameters<'a>(
    dispositions: impl IntoIterator<Item = &'a Parameters>,
    content_type: &Parameters,
    charset: Option<&str>,
) -> Option<String> {
    let filename = dispositions.into_iter().find_map(|d| {
        // `name` in the disposition is a form field's, or a mistake for `filename`.
        d.text("filename", charset).and_then(tidy).or_else(|| d.text("name", charset).and_then(tidy))
    });
    filename.or_else(|| content_type.text("name", charset).and_then(tidy)).or_else(|| {
        // Rare mistake in the other direction.
        content_type.text("filename", charset).and_then(tidy)
    })
}

/// A name made of what other headers say: the description, or the last piece of the location.
pub(crate) fn from_other_headers(fields: &[Field], charset: Option<&str>) -> Option<String> {
    let description = || header::first(fields, "content-description").and_then(|d| tidy(words::text(d, charset)));
    let location = || {
        let location = header::first(fields, "content-location")?;
        let path = location.split(|b| matches!(b, b'?' | b'#')).next()?;
        let last = path.rsplit(|&b| b == b'/').next()?;
        let bytes: Vec<u8> = percent_encoding::percent_decode(last).collect();
        tidy(words::text(&bytes, charset))
    };
    description().or_else(location)
}

/// The name that a message's subject gives it as an attachment.
pub(crate) fn from_subject(subject: &str) -> Option<String> {
    tidy(subject.to_owned()).map(|subject| format!("{subject}.eml"))
}

/// A value of a `Content-Disposition` or `Content-Type` header, on one line and of bounded length; what is hostile in
/// it stays.
fn tidy(name: String) -> Option<String> {
    let name = name.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let one_line = |c: char| if matches!(c, '\r' | '\n' | '\t') { ' ' } else { c };
    (!name.is_empty()).then(|| name.chars().take(LONGEST_NAME).map(one_line).collect())
}

/// See [`Attachment::file_name`](crate::Attachment::file_name).
pub(crate) fn safe_file_name(name: Option<&str>, content_type: &str) -> String {
    let cleaned = name.map(clean).unwrap_or_default();
    let mut name = match cleaned.strip_prefix('.') {
        // Nothing but an extension: hidden on one system, nameless on another.
        Some(extension) if !extension.is_empty() && !extension.contains('.') => {
            format!("attachment.{}", extension.trim_start())
        }
        _ => cleaned.trim_matches(is_edge).to_owned(),
    };
    if name.is_empty() {
        name = made_up(content_type).into_owned();
    }
    if content_type == "message/rfc822" && !has_extension(&name, "eml") {
        name.push_str(".eml");
    }
    if is_device(&name) {
        name.insert(0, '_');
    }
    shorten(name)
}

/// The last segment of the path, with nothing in it that a file system or a reader could take for something else.
fn clean(name: &str) -> String {
    let name: String = name.chars().take(LONGEST_NAME).nfc().collect();
    let segment = name.split(['/', '\\']).rfind(|s| !s.trim_matches(is_edge).is_empty()).unwrap_or_default();
    let visible = segment.chars().filter_map(|c| match c {
        '\t' | '\r' | '\n' => Some(' '),
        c if c.is_control() || is_invisible(c) => None,
        '<' | '>' | ':' | '"' | '|' | '?' | '*' => Some('_'),
        c => Some(c),
    });
    // Taking something out may have brought together what composes.
    let visible: String = visible.nfc().collect();
    visible.trim_matches(char::is_whitespace).trim_end_matches(is_edge).to_owned()
}

/// What Windows drops at a name's end, and what hides a file elsewhere.
fn is_edge(c: char) -> bool {
    c == '.' || c.is_whitespace()
}

/// Characters that turn text around, join, or show nothing: what they do to a name is never what its reader thinks.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Names that Windows gives to devices, whatever the extension ("Naming Files, Paths, and Namespaces").
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_uppercase();
    let mut characters = stem.chars();
    let numbered = stem.starts_with("COM") || stem.starts_with("LPT");
    let last = characters.next_back();
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$")
        || (numbered
            && characters.count() == 3
            && last.is_some_and(|c| c.is_ascii_digit() || matches!(c, '¹' | '²' | '³')))
}

fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, e)| !stem.is_empty() && e.eq_ignore_ascii_case(extension))
}

fn shorten(name: String) -> String {
    if name.len() <= LONGEST_FILE_NAME {
        return name;
    }
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, e)) if !e.is_empty() && e.len() <= 20 && !e.contains(char::is_whitespace) => (stem, Some(e)),
        _ => (name.as_str(), None),
    };
    let mut end = LONGEST_FILE_NAME - extension.map_or(0, |e| e.len() + 1);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    let stem = stem[..end].trim_end_matches(is_edge);
    match extension {
        Some(extension) => format!("{stem}.{extension}"),
        None => stem.to_owned(),
    }
}

/// A name for what its sender did not name.
fn made_up(content_type: &str) -> Cow<'static, str> {
    let extension = match content_type {
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => return "smime.p7m".into(),
        "application/pkcs7-signature" | "application/x-pkcs7-signature" => return "smime.p7s".into(),
        "application/ms-tnef" | "application/vnd.ms-tnef" => return "winmail.dat".into(),
        "application/pgp-signature" => return "signature.asc".into(),
        "message/delivery-status" | "message/global-delivery-status" => return "delivery-status.txt".into(),
        "message/disposition-notification" => return "disposition-notification.txt".into(),
        "text/rfc822-headers" | "message/global-headers" => return "headers.txt".into(),
        "" => return "attachment".into(),
        "application/pdf" | "application/x-pdf" => "pdf",
        "application/xml" | "text/xml" => "xml",
        "application/json" => "json",
        "application/zip" | "application/x-zip-compressed" => "zip",
        "application/gzip" | "application/x-gzip" => "gz",
        "application/rtf" | "text/rtf" => "rtf",
        "application/msword" => "doc",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.ms-powerpoint" => "ppt",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation" => "pptx",
        "application/vnd.oasis.opendocument.text" => "odt",
        "application/vnd.oasis.opendocument.spreadsheet" => "ods",
        "application/postscript" => "ps",
        "application/pgp-encrypted" | "application/pgp-keys" => "asc",
        "message/rfc822" => "eml",
        "text/html" => "html",
        "text/csv" => "csv",
        "text/calendar" => "ics",
        "text/vcard" | "text/x-vcard" => "vcf",
        "image/jpeg" | "image/jpg" | "image/pjpeg" => "jpg",
        "image/png" => "png",
        "image/gif" => "gif",
        "image/tiff" => "tif",
        "image/bmp" | "image/x-ms-bmp" => "bmp",
        "image/webp" => "webp",
        "image/svg+xml" => "svg",
        "image/heic" => "heic",
        "audio/mpeg" => "mp3",
        "audio/wav" | "audio/x-wav" => "wav",
        "video/mp4" => "mp4",
        other if other.ends_with("+xml") => "xml",
        other if other.ends_with("+json") => "json",
        other if other.starts_with("text/") => "txt",
        _ => "bin",
    };
    format!("attachment.{extension}").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from_part_header(block: &[u8]) -> Option<String> {
        let header = crate::mime::part::PartHeader::parse(block, "text/plain");
        header.name.or(header.other_name)
    }

    #[test]
    fn the_best_source_counts() {
        for (header, expected) in [
            ("Content-Disposition: attachment; filename*=utf-8''a; filename=b\nContent-Type: x/y; name=c", Some("a")),
            ("Content-Type: x/y; name=c\nContent-Disposition: attachment; filename=\"=?utf-8?Q?b?=\"", Some("b")),
            ("Content-Disposition: attachment\nContent-Type: x/y; name*=utf-8''c; name=d", Some("c")),
            ("Content-Type: x/y; name=d\nContent-Description: e", Some("d")),
            ("Content-Type: x/y; name=\"\"\nContent-Description: =?utf-8?Q?e_f?=", Some("e f")),
            ("Content-Location: https://host/dir/a%20b.png?x=y/z", Some("a b.png")),
            ("Content-Type: x/y", None),
            // What Dovecot's BODYSTRUCTURE cuts after the first blank.
            ("Content-Disposition: attachment; filename=my file.pdf", Some("my file.pdf")),
        ] {
            assert_eq!(from_part_header(header.as_bytes()).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn names_become_safe() {
        for (name, expected) in [
            ("invoice.pdf", "invoice.pdf"),
            (r"C:\scans\..\CON.pdf", "_CON.pdf"),
            ("../../etc/passwd", "passwd"),
            ("a/b/", "b"),
            ("..", "attachment.pdf"),
            (" . . ", "attachment.pdf"),
            ("", "attachment.pdf"),
            (".pdf", "attachment.pdf"),
            (".hidden.pdf", "hidden.pdf"),
            ("a.pdf. . ", "a.pdf"),
            ("a:b|c?d*e<f>g\"h.pdf", "a_b_c_d_e_f_g_h.pdf"),
            ("a\tb\r\n\0c.pdf", "a b  c.pdf"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("a\u{200b}\u{feff}.pdf", "a.pdf"),
            ("e\u{301}.pdf", "é.pdf"),
            ("nul", "_nul"),
            ("com1 .x.pdf", "_com1 .x.pdf"),
            ("COM¹", "_COM¹"),
            ("common.pdf", "common.pdf"),
            ("CON\u{200b}.pdf", "_CON.pdf"),
        ] {
            assert_eq!(safe_file_name(Some(name), "application/pdf"), expected, "{name:?}");
        }
    }

    #[test]
    fn nameless_things_are_named_by_their_type() {
        for (content_type, expected) in [
            ("application/pdf", "attachment.pdf"),
            ("application/pkcs7-mime", "smime.p7m"),
            ("application/ms-tnef", "winmail.dat"),
            ("message/rfc822", "attachment.eml"),
            ("text/x-unheard-of", "attachment.txt"),
            ("application/x-unheard-of", "attachment.bin"),
            ("", "attachment"),
        ] {
            assert_eq!(safe_file_name(None, content_type), expected);
        }
        assert_eq!(safe_file_name(Some("Re: invoice"), "message/rfc822"), "Re_ invoice.eml");
        assert_eq!(safe_file_name(Some("a.EML"), "message/rfc822"), "a.EML");
    }

    #[test]
    fn long_names_keep_their_extension() {
        let name = safe_file_name(Some(&format!("{}.pdf", "é".repeat(300))), "");
        assert_eq!(name, format!("{}.pdf", "é".repeat(73)));
        assert_eq!(safe_file_name(Some(&"x".repeat(300)), ""), "x".repeat(150));
        let odd = format!("{}. {}", "x".repeat(100), "y".repeat(100));
        assert_eq!(safe_file_name(Some(&odd), "").len(), 150);
    }

    proptest! {
        #[test]
        fn every_name_is_safe(name in "\\PC{0,200}|[./\\\\ a-cA-C:\u{200b}\u{301}ONco1]{0,20}|.{0,40}", eml in any::<bool>()) {
            let content_type = if eml { "message/rfc822" } else { "application/pdf" };
            let safe = safe_file_name(Some(&name), content_type);
            prop_assert!(!safe.is_empty() && safe.len() <= LONGEST_FILE_NAME);
            prop_assert!(!safe.contains(|c: char| c.is_control() || "/\\<>:\"|?*".contains(c) || is_invisible(c)));
            prop_assert!(!safe.starts_with(is_edge) && !safe.ends_with(is_edge) && !is_device(&safe));
            prop_assert_eq!(safe_file_name(Some(&safe), content_type), safe);
        }
    }
}
