"""Short forms of given names that are common in the United States, for suggestions only.

There is no reliable public list of nicknames, and any list is more complete for some origins than for others. That is
why these never make a link: a nickname is a reason to show a patient, and to believe that two names are compatible.
"""

from __future__ import annotations

_GROUPS = """
abigail abby gail|abraham abe|albert al bert|alexander alex al sandy xander|alexandra alex sandra lexi sandy
alfred al fred|alice ali|amanda mandy|andrew andy drew|angela angie|anna ann annie|anthony tony|antonio tony tono
arthur art|barbara barb babs|benjamin ben benny|bernard bernie|beverly bev|bradley brad|cameron cam
catherine cathy kate katie cat|katherine kathy kate katie kat kathryn|charles charlie chuck chas
christina chris tina christy|christine chris tina christy|christopher chris topher kit|clifford cliff|cynthia cindy
daniel dan danny|danielle dani|david dave davey|deborah deb debbie debra|dennis denny|donald don donnie
dorothy dot dottie|douglas doug|edward ed eddie ted ned|eleanor ellie nora
elizabeth liz beth betty eliza lizzie betsy libby|emily em|eugene gene|florence flo|frances fran frannie
francis frank|francisco paco pancho frank|franklin frank|frederick fred freddy|gabriel gabe|gabriela gaby
gerald gerry jerry|gregory greg|guadalupe lupe|harold hal harry|henry hank harry|isabel isabella bella izzy
jacob jake|jacqueline jackie|james jim jimmy jamie|janet jan|jason jay|jeffrey jeff|jennifer jen jenny
jessica jess jessie|jesus chuy|john jack johnny|jonathan jon john|jose pepe|joseph joe joey|josephine jo josie
joshua josh|judith judy|julia julie|kenneth ken kenny|kimberly kim|lawrence larry|leonard len leo lenny|leslie les
lillian lily lil|louis lou|louise lou|manuel manny|margaret maggie peg peggy meg marge|maria mary|martha marty
martin marty|mary molly polly|matthew matt|megan meg|melissa missy mel|michael mike mikey mick|michelle shelly
mildred millie|mitchell mitch|nancy nan|natalie nat|nathan nate|nathaniel nate nat|nicholas nick nicky|nicole nikki
norman norm|pamela pam|patricia pat patty trish tricia|patrick pat paddy|peter pete|philip phil|phillip phil
rachel rae|raymond ray|rebecca becky becca|richard rick dick rich ricky|robert bob rob bobby robbie bert
roberto beto|roger rog|ronald ron ronnie|rosemary rose rosie|russell russ|samantha sam|samuel sam sammy|sandra sandy
sarah sally|stanley stan|stephanie steph|stephen steve|steven steve|stuart stu|susan sue susie suzy|sylvia syl
teresa terry tess|theresa terry tess|theodore ted teddy theo|thomas tom tommy|timothy tim timmy|tyler ty|valerie val
veronica ronnie|victor vic|victoria vicky tori|vincent vince vinny|virginia ginny|walter walt wally|wayne way
william bill will billy willie liam|zachary zach zack
"""


def _table() -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = {}
    for line in _GROUPS.strip().splitlines():
        for group in line.split("|"):
            formal, *short = group.split()
            for name in short:
                table.setdefault(formal, set()).add(name)
                table.setdefault(name, set()).add(formal)
    return {name: frozenset(others) for name, others in table.items()}


_TABLE = _table()


def nicknames(name: str) -> frozenset[str]:
    """The short forms of a formal given name, or the formal names of a short form; both in lower case."""
    return _TABLE.get(name, frozenset())


def are_nicknames(one: str, other: str) -> bool:
    """Whether one of the names is a short form of the other, or both are of the same name."""
    known = nicknames(one)
    return other in known or not known.isdisjoint(nicknames(other))
