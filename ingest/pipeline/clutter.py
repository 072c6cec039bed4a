"""Recognizes files among images that are not images, by name, suffix and first bytes."""

import re

# Created by file servers, file managers, photo programs and archivers; compared in lower case.
_FOLDERS = {
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "@sharebin",
    "@tmp",
    "@__thumb",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "$recycle.bin",
    "recycler",
    "recycled",
    "system volume information",
    "lost+found",
    "__macosx",
    "__pycache__",
    "_vti_cnf",
    "ipod photo cache",
    "lost.dir",
    "network trash folder",
    "temporary items",
    "thevolumesettingsfolder",
}
_FILES = {
    "thumbs.db",
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "icon?",
    "picasa.ini",
    "zbthumbnail.info",
    "pspbrwse.jbf",
    "sync.ffs_db",
    "aquota.user",
    "aquota.group",
    "dvc.lock",
}
# Windows chkdsk puts recovered fragments there.
_FOUND_FOLDER = re.compile(r"found\.\d{3}")
# The Windows mark of downloads; WSL, archives and network shares may replace the colon by another character.
_ZONE = "zone.identifier"
# Other alternate data streams, as they appear through WSL or in an archive.
_STREAM = re.compile(r".+:(smartscreen|mshield|com\.(apple|dropbox)\.[\w.]+)")
# Sidecars, annotations, notes, code, video, audio: not images, unless their first bytes say so.
_SUFFIXES = """
    aae ann aria2 aux bak bib bpw caption cfg ckpt conf cop cos cpg crc crdownload css csv dat data db dbf doc docx dop
    download dvc eml
    ffs_db filepart geojson gfw gpx htm html ini ipynb ithmb jbf jgw jpw js json jsonl kml label labels lck lnk lock log
    lrcat m mat md md5 msg names nfo odp ods odt on1 opdownload ovr part partial pbtxt pgw pkl plist pp3 ppt pptx prj
    prototxt pth pts py r readme rst rtf sfv sh sha1 sha256 sha512 shp shx sqlite srt tfw tmp toml torrent tsv txt url
    vtt webloc wld xls xlsx xml xmp yaml yml
    3gp aac amr avi flac flv insv lrv m2ts m4a m4v mkv mov mp3 mp4 mpeg mpg mts ogg ogv wav webm wmv
"""
_SIDECARS = frozenset(_SUFFIXES.split())
# A camera's thumbnail of a video is a JPEG but not a photo.
_ALWAYS = {"thm"}
_IMAGE_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"8BPS")
_IMAGE_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"}
HEAD_BYTES = 16


def is_clutter(name: str) -> bool:
    """Whether a file or folder of that name was created by a program, not by the user."""
    return bool(clutter_kind(name))


def clutter_kind(name: str) -> str:
    """Returns a description of a file or folder that was created by a program; empty for all others."""
    if name.startswith("."):
        return "hidden"
    lower = name.lower()
    stream = lower.removesuffix(":$data")
    if stream.endswith(_ZONE):
        return "Zone.Identifier"
    if _STREAM.fullmatch(stream):
        return f"a file's attribute {stream[stream.rindex(':') :]}"
    if lower in _FOLDERS or lower in _FILES or lower.startswith("~$") or _FOUND_FOLDER.fullmatch(lower):
        return name.strip()
    return ""


def sidecar_suffix(name: str) -> str:
    """Returns the suffix, such as ".json", if it says that the file is not an image; otherwise empty."""
    _, dot, suffix = name.rpartition(".")
    suffix = suffix.lower()
    return f".{suffix}" if dot and (suffix in _SIDECARS or suffix in _ALWAYS) else ""


def is_sidecar(suffix: str, head: bytes) -> bool:
    """Whether the first bytes confirm that a file with a suffix from `sidecar_suffix` is not an image."""
    return suffix[1:] in _ALWAYS or not _is_image(head)


def _is_image(head: bytes) -> bool:
    if head.startswith(_IMAGE_MARKS) or (head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS):
        return True
    # Text may also start with "BM" or "RIFF".
    return (head[:2] == b"BM" and head[6:10] == bytes(4)) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
