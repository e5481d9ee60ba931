//! The files of the web page, as they are in the binary. The CLI includes this file too, so that
//! `llada replay` needs no server.

/// Name and content of each; a module of JavaScript comes after those that it imports.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("index.html", include_str!("../page/index.html")),
    ("style.css", include_str!("../page/style.css")),
    ("icon.svg", include_str!("../page/icon.svg")),
    ("i18n.js", include_str!("../page/i18n.js")),
    ("api.js", include_str!("../page/api.js")),
    ("run.js", include_str!("../page/run.js")),
    ("canvas.js", include_str!("../page/canvas.js")),
    ("player.js", include_str!("../page/player.js")),
    ("plot.js", include_str!("../page/plot.js")),
    ("settings.js", include_str!("../page/settings.js")),
    ("report.js", include_str!("../page/report.js")),
    ("snippets.js", include_str!("../page/snippets.js")),
    ("app.js", include_str!("../page/app.js")),
];
