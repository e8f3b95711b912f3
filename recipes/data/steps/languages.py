"""Languages by their codes (ISO 639), as the libraries know them; a test compares.

They are written down so that checking a recipe loads no model.
"""

_IDENTIFIED = """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu
    ext fa fi fo fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is
    it ja jv ka kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne
    nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta
    te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx
"""
IDENTIFIED = tuple(_IDENTIFIED.split())
"""What py3langid tells apart; zxx is text in no language."""

_STOP_WORDS = """
    af ar bg bn br ca cs da de el en eo es et eu fa fi fr ga gl gu ha he hi hr hu hy id it ja ko
    ku la lt lv mr ms nl no pl pt ro ru sk sl so st sv sw th tl tr uk ur vi yo zh zu
"""
STOP_WORDS = tuple(_STOP_WORDS.split())
"""What stopwordsiso has lists for."""
