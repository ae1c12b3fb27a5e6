"""The words of the corpus, and what goes with what, so that nobody drinks a shoe.

Each table has one line per word. A noun's kinds say which verbs and adjectives take it: a `drink`
can be drunk. If English has a choice, the tables make it: each word has one English word.
"""

from typing import NamedTuple


class Noun(NamedTuple):
    """A thing. English counts it ("a book"), or not: mass ("coffee"), pair ("shoes"), name."""

    ko: str
    en: str
    number: str  # count, mass, pair or name
    kinds: tuple
    counter: str  # a key of COUNTERS, or "" if it is not counted here


class Person(NamedTuple):
    """Who does something: a pronoun, a name, a relative."""

    ko: str
    en: str
    pronoun: str  # its pronoun in a second clause: I, you, we, they, he, she
    elder: bool = False  # is honoured
    name: bool = False
    mine: str = ""  # 내 (제 when polite) or 우리, before the word


class Verb(NamedTuple):
    ko: str
    en: str
    objects: tuple  # kinds
    places: tuple  # keys of PLACES where it is done
    flags: tuple
    # stative: no progressive.    noun: 공부하다, denied as 공부를 안 하다.
    # long: denied as -지 않다.    water: its object takes 에, 꽃에 물을 주다.


class Adjective(NamedTuple):
    ko: str
    en: str
    kinds: tuple
    denied: str = ""  # its negation, if that is a word of its own: 맛있다, 맛없다


class Weather(NamedTuple):
    """A whole clause without one of our subjects: "비가 오다", it rains."""

    ko: str
    subject: str
    en: str
    descriptive: bool


class Place(NamedTuple):
    ko: str
    to: str  # "to school"
    at: str  # "at school"


class Spot(NamedTuple):
    """Where a thing is: 책상 위, on the desk."""

    ko: str
    at: str


class Time(NamedTuple):
    ko: str
    en: str
    tenses: tuple


def _rows(text):
    for line in text.strip().splitlines():
        yield [part.strip() for part in line.split("|")]


_NUMBER = {"~": "mass", "=": "pair", "'": "name"}  # marks before the English

# Korean | English | kinds | counter
THINGS = {
    ko: Noun(ko, en.lstrip("~='"), _NUMBER.get(en[0], "count"), tuple(kinds.split()), counter)
    for ko, en, kinds, counter in _rows(
        """
        커피 | ~coffee | drink make buy like order taste price | 잔
        차 | ~tea | drink make buy like order taste price | 잔
        우유 | ~milk | drink buy like taste price | 잔
        주스 | ~juice | drink make buy like order taste sweet price | 병
        물 | ~water | drink buy | 병
        콜라 | ~cola | drink buy like order taste sweet | 병
        맥주 | ~beer | drink buy like order taste price | 병
        밥 | ~rice | eat make |
        빵 | ~bread | eat make buy like taste |
        고기 | ~meat | eat buy like taste price |
        생선 | ~fish | eat buy like taste price |
        김치 | ~kimchi | eat make buy like taste spicy |
        라면 | ~ramen | eat make buy like order taste spicy |
        불고기 | ~bulgogi | eat make like order taste price |
        비빔밥 | ~bibimbap | eat make like order taste spicy |
        치즈 | ~cheese | eat buy like taste price |
        초콜릿 | ~chocolate | eat buy like taste sweet give |
        피자 | ~pizza | eat make buy like order taste price |
        사과 | apple | eat buy like taste sweet give | 개
        바나나 | banana | eat buy like taste sweet give | 개
        오렌지 | orange | eat buy like taste sweet give | 개
        딸기 | strawberry | eat buy like taste sweet give | 개
        수박 | watermelon | eat buy like taste sweet price | 개
        토마토 | tomato | eat buy like taste | 개
        케이크 | cake | eat make buy like order taste sweet price | 개
        책 | book | read write buy sell borrow like give interesting price hard | 권
        소설 | novel | read write buy borrow like interesting hard | 권
        잡지 | magazine | read buy borrow like give interesting price | 권
        신문 | newspaper | read buy |
        편지 | letter | read write send get | 통
        이메일 | email | read write send get | 통
        영화 | movie | watch make like interesting | 편
        드라마 | drama | watch make like interesting | 편
        음악 | ~music | listen study like |
        노래 | song | listen sing make like | 곡
        라디오 | 'the radio | listen |
        셔츠 | shirt | wear buy sell like give price pretty size |
        스웨터 | sweater | wear buy sell like give price pretty |
        코트 | coat | wear buy sell like price pretty size |
        바지 | =pants | wear buy sell price size |
        신발 | =shoes | shoe buy sell like price pretty size |
        양말 | =socks | shoe buy give pretty |
        모자 | hat | cap buy sell like give price pretty size | 개
        안경 | =glasses | cap buy price |
        가방 | bag | buy sell lose like give price pretty size | 개
        우산 | umbrella | buy borrow lose give price size | 개
        시계 | watch | buy sell lose like give price pretty | 개
        지갑 | wallet | buy lose give price | 개
        휴대폰 | phone | buy sell lose price | 대
        컴퓨터 | computer | buy sell like price size | 대
        카메라 | camera | buy sell borrow lose like price | 대
        자전거 | bicycle | ride buy sell borrow like give price | 대
        자동차 | car | buy sell like price size | 대
        의자 | chair | buy make price size | 개
        침대 | bed | buy price size | 개
        선물 | gift | buy send get give | 개
        꽃 | flower | buy like send get give pretty water draw | 송이
        나무 | tree | like draw water size | 그루
        사진 | picture | photo like send get pretty | 장
        집 | house | build buy sell clean price pretty size | 채
        방 | room | clean size |
        창문 | window | open |
        문 | door | open |
        버스 | bus | take await | 대
        기차 | train | take await |
        택시 | taxi | take await | 대
        고양이 | cat | pet like draw cute animal | 마리
        개 | dog | pet like draw cute size animal | 마리
        강아지 | puppy | pet like draw cute animal | 마리
        토끼 | rabbit | pet like draw cute animal | 마리
        새 | bird | pet like draw pretty animal | 마리
        한국어 | 'Korean | study teach hard |
        영어 | 'English | study teach hard |
        수학 | 'math | study teach like hard interesting |
        역사 | 'history | study teach like hard interesting |
        과학 | 'science | study teach like hard interesting |
        축구 | 'soccer | sport like interesting |
        농구 | 'basketball | sport like interesting |
        테니스 | 'tennis | racket like interesting |
        피아노 | 'the piano | instrument |
        기타 | 'the guitar | instrument |
        """
    )
}

# Korean | English; a person by trade.
TRADES = {
    ko: Noun(ko, en.lstrip("'"), _NUMBER.get(en[0], "count"), ("person",), "명")
    for ko, en in _rows(
        """
        학생 | student
        의사 | doctor
        간호사 | nurse
        가수 | singer
        요리사 | cook
        작가 | writer
        기자 | reporter
        배우 | actor
        화가 | painter
        경찰관 | police officer
        회사원 | office worker
        선생님 | teacher
        한국 사람 | 'Korean
        미국 사람 | 'American
        친구 | friend
        """
    )
}

# What one has: 남동생이 있어요.
KIN = {
    ko: Noun(ko, en, "count", (), "명")
    for ko, en in _rows(
        """
        형 | older brother
        누나 | older sister
        남동생 | younger brother
        여동생 | younger sister
        아들 | son
        딸 | daughter
        친구 | friend
        """
    )
}

SPEAKER, LISTENER = Person("나", "I", "I"), Person("너", "you", "you")
WE = Person("우리", "we", "we")
NAMES = tuple(
    Person(ko, en, pronoun, name=True)
    for ko, en, pronoun in _rows(
        """
        민수 | Minsu | he
        철수 | Cheolsu | he
        하준 | Hajun | he
        수진 | Sujin | she
        지민 | Jimin | she
        영희 | Yeonghui | she
        """
    )
)
# Bare 엄마 is a name, Mom; 우리 엄마 is my mom.
PARENTS = tuple(
    Person(ko, en, pronoun, elder=elder == "elder")
    for ko, en, pronoun, elder in _rows(
        """
        엄마 | Mom | she |
        아빠 | Dad | he |
        할머니 | Grandma | she | elder
        할아버지 | Grandpa | he | elder
        """
    )
)
MINE = tuple(
    Person(ko, "my " + en, pronoun, elder=elder == "elder", mine=mine)
    for ko, en, pronoun, mine, elder in _rows(
        """
        엄마 | mom | she | 우리 |
        아빠 | dad | he | 우리 |
        어머니 | mother | she | 우리 | elder
        아버지 | father | he | 우리 | elder
        할머니 | grandma | she | 우리 | elder
        할아버지 | grandpa | he | 우리 | elder
        선생님 | teacher | she | 우리 | elder
        형 | older brother | he | 우리 |
        누나 | older sister | she | 우리 |
        남동생 | younger brother | he | 내 |
        여동생 | younger sister | she | 내 |
        아들 | son | he | 우리 |
        딸 | daughter | she | 우리 |
        친구 | friend | he | 내 |
        친구들 | friends | they | 내 |
        가족 | family | they | 우리 |
        가족들 | family | they | 내 |
        """
    )
)
# Himself, myself: only as an object.
SELF = Person("스스로", "-self", "")

# Korean | English | kinds of its object | places | flags.
VERBS = {
    (ko, en): Verb(ko, en, tuple(objects.split()), tuple(places.split()), tuple(flags.split()))
    for ko, en, objects, places, flags in _rows(
        """
        마시다 | drink | drink | 집 카페 식당 |
        먹다 | eat | eat | 집 식당 학교 |
        읽다 | read | read | 집 도서관 카페 방 |
        쓰다 | write | write | 집 도서관 카페 방 |
        사다 | buy | buy | 시장 가게 |
        팔다 | sell | sell | 시장 가게 |
        만들다 | make | make | 집 부엌 |
        보다 | watch | watch | 집 극장 |
        듣다 | listen to | listen | 집 방 카페 |
        부르다 | sing | sing | 집 학교 |
        입다 | wear | wear | |
        신다 | wear | shoe | |
        쓰다 | wear | cap | |
        만나다 | meet | person | 카페 공원 식당 역 | meeting
        기다리다 | wait for | person await | 역 |
        돕다 | help | person | 집 학교 |
        사랑하다 | love | person | | stative long
        좋아하다 | like | person like | | stative
        싫어하다 | hate | like | | stative positive
        믿다 | trust | person | | stative
        알다 | know | person | | stative
        배우다 | learn | study sport racket instrument | 학교 |
        공부하다 | study | study | 집 학교 도서관 카페 방 | noun
        가르치다 | teach | teach | 학교 |
        청소하다 | clean | clean | | noun
        열다 | open | open | |
        닫다 | close | open | |
        빌리다 | borrow | borrow | 도서관 |
        타다 | take | take | 역 | stative
        타다 | ride | ride | 공원 |
        키우다 | raise | pet | 집 |
        그리다 | draw | draw | 집 공원 학교 |
        찍다 | take | photo | 공원 바다 |
        받다 | get | get | 집 | stative
        보내다 | send | send | |
        주다 | give | give | |
        물을 주다 | water | water | 공원 |
        짓다 | build | build | 서울 부산 |
        주문하다 | order | order | 카페 식당 | long
        잃어버리다 | lose | lose | 학교 공원 역 시장 | lost
        하다 | play | sport | 학교 공원 |
        치다 | play | racket instrument | 학교 |
        자다 | sleep | | 집 방 |
        쉬다 | rest | | 집 방 공원 |
        웃다 | laugh | | |
        울다 | cry | | 집 방 |
        걷다 | walk | | 공원 |
        놀다 | play | | 집 공원 학교 |
        춤을 추다 | dance | | 학교 공원 |
        일하다 | work | | 회사 은행 병원 식당 시장 | noun
        운동하다 | exercise | | 공원 학교 집 | noun
        요리하다 | cook | | 집 부엌 식당 | noun
        수영하다 | swim | | 바다 | noun
        산책하다 | take a walk | | 공원 | noun
        쇼핑하다 | shop | | 시장 가게 | noun
        """
    )
}
GO, COME, LIVE, STAY = (
    Verb(ko, en, (), (), flags)
    for ko, en, flags in (
        ("가다", "go", ()),
        ("오다", "come", ()),
        ("살다", "live", ()),
        ("있다", "be", ("stative",)),
    )
)
DO = Verb("하다", "do", (), (), ())  # only to ask: 뭐 해요?
# 있다 once more: what one has. 없다 denies it.
HAVE = Verb("있다", "have", (), (), ("stative",))

# Korean | English | kinds of nouns | the word that denies it.
ADJECTIVES = {
    ko: Adjective(ko, en, tuple(kinds.split()), denied)
    for ko, en, kinds, denied in _rows(
        """
        맛있다 | delicious | taste | 맛없다
        재미있다 | interesting | interesting | 재미없다
        맵다 | spicy | spicy |
        달다 | sweet | sweet |
        비싸다 | expensive | price |
        싸다 | cheap | price |
        크다 | big | size |
        작다 | small | size |
        예쁘다 | pretty | pretty |
        귀엽다 | cute | cute |
        어렵다 | difficult | hard |
        쉽다 | easy | hard |
        바쁘다 | busy | feeling |
        피곤하다 | tired | feeling |
        행복하다 | happy | feeling |
        아프다 | sick | feeling |
        배가 고프다 | hungry | feeling |
        목이 마르다 | thirsty | feeling |
        친절하다 | kind | nature |
        키가 크다 | tall | nature |
        """
    )
}
# Korean | English subject | English predicate, "=" before an adjective.
WEATHER = {
    ko: Weather(ko, subject, en.lstrip("="), en.startswith("="))
    for ko, subject, en in _rows(
        """
        춥다 | it | =cold
        덥다 | it | =hot
        따뜻하다 | it | =warm
        날씨가 좋다 | the weather | =nice
        날씨가 나쁘다 | the weather | =bad
        비가 오다 | it | rain
        눈이 오다 | it | snow
        """
    )
}

PLACES = {
    ko: Place(ko, to, at)
    for ko, to, at in _rows(
        """
        집 | home | at home
        학교 | to school | at school
        회사 | to work | at work
        도서관 | to the library | at the library
        공원 | to the park | in the park
        카페 | to the cafe | at the cafe
        식당 | to the restaurant | at the restaurant
        시장 | to the market | at the market
        가게 | to the store | at the store
        병원 | to the hospital | at the hospital
        은행 | to the bank | at the bank
        극장 | to the theater | at the theater
        역 | to the station | at the station
        바다 | to the sea | at the sea
        방 | to the room | in the room
        부엌 | to the kitchen | in the kitchen
        서울 | to Seoul | in Seoul
        부산 | to Busan | in Busan
        한국 | to Korea | in Korea
        미국 | to America | in America
        """
    )
}
CITIES = ("서울", "부산", "한국", "미국")

SPOTS = tuple(
    Spot(f"{thing} {side}", f"{preposition} the {en}")
    for thing, en in (("책상", "desk"), ("의자", "chair"), ("침대", "bed"), ("나무", "tree"))
    for side, preposition in (
        ("위", "on"),
        ("밑", "under"),
        ("옆", "next to"),
        ("앞", "in front of"),
    )
    if (thing, side) != ("나무", "위")
)

TIMES = {
    ko: Time(ko, en, tuple(tenses.split()))
    for ko, en, tenses in _rows(
        """
        오늘 | today | past future
        어제 | yesterday | past
        내일 | tomorrow | future
        지금 | now | progressive
        매일 | every day | present past
        아침에 | in the morning | present past future
        저녁에 | in the evening | present past future
        밤에 | at night | present past future
        주말에 | on the weekend | present past future
        월요일에 | on Monday | present past future
        금요일에 | on Friday | present past future
        일요일에 | on Sunday | present past future
        여름에 | in summer | present past future
        겨울에 | in winter | present past future
        """
    )
}
FREQUENCIES = {"자주": "often", "가끔": "sometimes", "항상": "always"}

# Native numbers before a counter, Sino-Korean ones for minutes.
NATIVE = dict(enumerate("한 두 세 네 다섯 여섯 일곱 여덟 아홉 열 열한 열두".split(), start=1)) | {
    20: "스무",
    30: "서른",
}
MINUTES = {5: "오", 10: "십", 15: "십오", 20: "이십", 30: "삼십", 40: "사십", 45: "사십오"}
# Counter -> what English puts before "of", "" for a plain number: three cups of coffee, two books.
COUNTERS = {
    "잔": "cup",
    "병": "bottle",
    **dict.fromkeys("개 권 통 편 곡 대 송이 그루 장 채 마리 명".split(), ""),
}
