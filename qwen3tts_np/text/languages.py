"""Language data of the sentence splitter: abbreviations and the most common words.

The common words have two uses: they identify the language of a text, and a capitalised one after an abbreviation
indicates the start of a sentence ("at 5 p.m. The train", but "at 5 p.m. Eastern").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .pace import is_han, is_hangul, is_kana

SAMPLE = 10_000  # characters of a text used to identify its language


@dataclass(frozen=True)
class Habits:
    """Data of one language. Abbreviations are lower case, without the last dot and spaces (``z.b`` for "z. B.")."""

    titles: frozenset[str]  # always followed by a name
    numbered: frozenset[str]  # abbreviations where a number follows, perhaps words elsewhere
    others: frozenset[str]  # may end a sentence
    common: frozenset[str]  # the most common words
    ordinals: bool = False  # "3." means "third"


def _habits(titles: str, numbered: str, others: str, common: str, ordinals: bool = False) -> Habits:
    return Habits(_words(titles), _words(numbered), _words(others), _words(common), ordinals)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HABITS = {
    "english": _habits(
        titles="mr mrs ms messrs mme mlle dr prof rev hon gen col maj capt cmdr lt sgt cpl adm gov pres sen rep supt "
        "st mt ft vs viz cf e.g i.e eg ie",
        numbered="no nos p pp pg fig figs vol vols ch chap sec sect art par para eq ex ed op v ver approx ca c "
        "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri sat sun",
        others="etc inc ltd co corp llc bros jr sr esq phd ph.d m.d b.a m.a b.sc m.sc a.m p.m am pm a.d b.c ad bc "
        "u.s u.k u.n e.u u.s.a d.c al dept univ assn ave blvd rd hwy apt est min max hr hrs sec lb lbs oz in "
        "mass calif wash tenn conn penn ill ariz fla",
        common="the a an and but or if so then when while as at by for from in of on to with it its he she they we you "
        "his her their our my this that these those there here who what why how where is was are were be been has had "
        "have not do did will would could should can may however after before now all no yes some one i",
    ),
    "german": _habits(
        titles="hr hrn fr frl dr prof dipl ing mag st z.b d.h u.a o.g s.o s.u i.d.r i.a bzw ca vgl sog insb inkl exkl "
        "evtl ggf eigtl ehem gest geb verh zzgl abzgl zb dh",
        numbered="nr nrn s abs art bd bde kap abb tab ziff aufl jh jhd tel hnr jan feb mrz apr jun jul aug sep sept "
        "okt nov dez",
        others="usw etc u.s.w u.v.m u.ä o.ä u.dgl pp ff f n.chr v.chr str pl jr sen min max std sek mio mrd tsd co kg "
        "gmbh e.v a.d a.m b allg dt engl franz lat zt z.t z.zt",
        common="der die das den dem des ein eine einen einem einer und aber oder denn doch wenn als da dann so wie was "
        "wer wo ich du er sie es wir ihr man sein seine ihre mein dies diese dieser in im an am auf aus bei mit nach "
        "von vom vor zu zum zur über unter um für durch nicht ist war sind waren hat hatte wird auch nur noch nun "
        "jetzt hier dort ja nein alle einige danach daher trotzdem",
        ordinals=True,
    ),
    "french": _habits(
        titles="m mm mme mmes mlle mlles me mgr dr pr prof st ste sts stes vve cf c.-à-d càd p.ex",
        numbered="n no nos art p pp chap fig vol t éd env tél av ap janv févr avr juil sept oct nov déc",
        others="etc ex j.-c av.j.-c ap.j.-c s.a s.a.r.l cie bd boul av dép éd coll trad réf hab apr fr lat angl",
        common="le la les un une des du de et mais ou donc or ni car si quand comme que qui quoi où il elle ils elles "
        "on nous vous je tu ce cet cette ces son sa ses leur leurs mon ma notre votre à au aux en dans par pour sur "
        "sous avec sans ne pas est était sont a avait plus tout tous puis alors ainsi enfin après avant oui non voici "
        "l' d' c' j' s' n' qu' m' t'",
    ),
    "spanish": _habits(
        titles="sr sra srta sres sras d da dña dn dr dra dres prof profa lic ing arq gral cnel cap fr fray sto sta sn "
        "excmo ilmo p.ej vid cf",
        numbered="núm núms n nº no pág págs p pp art cap fig vol t tel aprox ene feb mar abr jun jul ago sept oct nov "
        "dic apdo",
        others="etc ee uu ud uds vd vds vs av avda avd c cía s.a s.l a.c d.c a.m p.m am pm ej izq dcha dpto depto "
        "edif ed esq hnos máx mín prov pza ss aa rr hh jj oo ff",
        common="el la los las lo un una unos unas y o pero si cuando como que quien donde porque aunque mientras él "
        "ella ellos ellas yo tú nosotros usted se su sus mi mis tu este esta estos ese esa aquel de del a al en por "
        "para con sin sobre entre hasta desde no ni es era son fue había hay ha muy más ya también entonces luego "
        "después así sí todo todos nos le les",
    ),
    "portuguese": _habits(
        titles="sr sra srs sras srta d dr dra drs prof profa profª eng engª arq gen cel cap ten sgt pe fr frei sto sta "
        "exmo exma ilmo v.exa p.ex cf",
        numbered="núm n nº no pág págs p pp art arts cap fig vol t tel ap apto jan fev mar abr jun jul ago set out nov "
        "dez séc",
        others="etc av r al pç pça tv rod ltda cia s.a a.c d.c a.m p.m eua e.u.a ex obs máx mín aprox ed depto dpto "
        "sec min hab bras port",
        common="o a os as um uma uns umas e ou mas se quando como que quem onde porque embora enquanto ele ela eles "
        "elas eu tu nós você vocês seu sua seus suas meu minha este esta esse essa isso aquele de do da dos das em no "
        "na nos nas ao à aos por pelo pela para com sem sobre entre até desde não nem é era são foi havia há tem muito "
        "mais já também então depois assim sim todo todos lhe",
    ),
    "italian": _habits(
        titles="sig sig.ra sigg sig.na dott dott.ssa dr prof prof.ssa ing avv arch geom rag on sen mons don s ss p.es "
        "cfr gent egr spett cap gen col magg ten",
        numbered="n nn nr p pag pagg pp art artt cap fig vol tel sec gen feb mar apr mag giu lug ago set sett ott nov "
        "dic ca",
        others="ecc etc a.c d.c s.p.a spa s.r.l srl c.so p.zza v.le es ed trad v vs min max ad al f.lli cit op.cit tab "
        "prov dx sx ca ndr n.d.r",
        common="il lo la i gli le un uno una e ed o ma se quando come che chi dove perché mentre anche lui lei egli "
        "essa loro io tu noi voi si suo sua suoi sue mio mia questo questa quello quella di del della dei delle a al "
        "alla ai in nel nella da dal dalla per con su sul sulla tra fra senza fino non né è era sono fu aveva ha più "
        "già ora poi così allora dopo prima sì no tutto tutti ci ne l' un' dell' all' c' nell'",
    ),
    "russian": _habits(
        titles="г-н г-жа гр тов проф акад доц д-р им св ул пр просп пл пер наб обл р-н пос дер т.е т.н т.к напр см ср "
        "о-в",
        numbered="стр с рис табл гл ст п пп ч т тт изд вып кн разд вв в янв фев февр мар апр июн июл авг сен сент окт "
        "ноя нояб дек ок тел кв корп",
        others="т.д т.п др пр г гг н.э до.н.э руб коп тыс млн млрд трлн мин сек час ч кг км см мм м л стр ред пер "
        "англ нем фр лат рус греч",
        common="и а но или да же ли если когда как что кто где куда почему потому хотя пока он она оно они я ты мы вы "
        "его её ее их мой моя наш свой это этот эта эти тот та те в во на с со из к ко от до по за под над при без для "
        "о об у не ни был была было были есть быть так там тут здесь вот уже ещё еще только теперь потом тогда затем "
        "после все всё весь ну нет",
    ),
}
# ISO 639, which most other programs send, sometimes with a script, a region or an encoding: en-US, zh_CN.UTF-8.
CODES = {
    "zh": "chinese",
    "en": "english",
    "fr": "french",
    "de": "german",
    "it": "italian",
    "ja": "japanese",
    "ko": "korean",
    "pt": "portuguese",
    "ru": "russian",
    "es": "spanish",
    "zho": "chinese",
    "cmn": "chinese",
    "eng": "english",
    "fra": "french",
    "deu": "german",
    "ita": "italian",
    "jpn": "japanese",
    "kor": "korean",
    "por": "portuguese",
    "rus": "russian",
    "spa": "spanish",
}
_ASIAN = ("chinese", "japanese", "korean")  # abbreviations there are mostly English


def language_name(language: str) -> str:
    """The name of a language as models have it, in lower case: of a name in any case, or of a code."""
    name = language.strip().lower()
    return CODES.get(re.split("[-_.@]", name)[0], name)


def habits_of(language: str, text: str) -> Habits:
    """The data of a language of the model, or for any other name ("auto") of the detected language of ``text``."""
    name = language_name(language)
    if name not in (*HABITS, *_ASIAN):
        name = guess(text[:SAMPLE])
    return HABITS.get(name, HABITS["english"])


def guess(text: str) -> str:
    """The most likely of the ten languages of ``text``; "english" without any evidence."""
    scripts = {
        "latin": len(re.findall("[A-Za-z\u00c0-\u024f]", text)) // 3,  # a third of a Chinese character's time, each
        "chinese": sum(map(is_han, text)),
        "japanese": 10 * sum(map(is_kana, text)),  # among as many Han characters as there are
        "korean": sum(map(is_hangul, text)),
        "russian": len(re.findall("[\u0400-\u04ff]", text)),
    }
    script = max(scripts, key=lambda name: scripts[name])
    if script != "latin":
        return script
    words = re.findall(r"\w+['’]?", text.lower().replace("’", "'"))
    european = [name for name in HABITS if name != "russian"]
    return max(european, key=lambda name: sum(is_common(word, HABITS[name]) for word in words))


def is_common(word: str, habits: Habits) -> bool:
    """Whether ``word``, in lower case, possibly with a trailing apostrophe, is one of the most common words."""
    return word in habits.common or word.rstrip("'") in habits.common
