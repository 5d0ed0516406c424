// The tables of the small world: what is true, and the wordings in which it is said and asked.
// One row a line, fields between bars; "-" leaves a field out. Nothing here is drawn at random.
#include "facts.hpp"

namespace quickstart {

// country | capital | continent | language | currency
// A language or currency stands only where there is one that everybody would name.
const char* const kCountries = R"(
France|Paris|Europe|French|euro
Germany|Berlin|Europe|German|euro
Italy|Rome|Europe|Italian|euro
Spain|Madrid|Europe|Spanish|euro
Portugal|Lisbon|Europe|Portuguese|euro
Austria|Vienna|Europe|German|euro
Greece|Athens|Europe|Greek|euro
the Netherlands|Amsterdam|Europe|Dutch|euro
Slovakia|Bratislava|Europe|Slovak|euro
Slovenia|Ljubljana|Europe|Slovene|euro
Estonia|Tallinn|Europe|Estonian|euro
Latvia|Riga|Europe|Latvian|euro
Lithuania|Vilnius|Europe|Lithuanian|euro
Finland|Helsinki|Europe|Finnish|euro
Ireland|Dublin|Europe|-|euro
Malta|Valletta|Europe|-|euro
Croatia|Zagreb|Europe|Croatian|euro
Belgium|Brussels|Europe|-|euro
Luxembourg|Luxembourg|Europe|-|euro
Sweden|Stockholm|Europe|Swedish|krona
Norway|Oslo|Europe|Norwegian|krone
Denmark|Copenhagen|Europe|Danish|krone
Iceland|Reykjavik|Europe|Icelandic|krona
Poland|Warsaw|Europe|Polish|zloty
Hungary|Budapest|Europe|Hungarian|forint
Romania|Bucharest|Europe|Romanian|leu
Albania|Tirana|Europe|Albanian|lek
Serbia|Belgrade|Europe|Serbian|dinar
Ukraine|Kyiv|Europe|Ukrainian|hryvnia
Switzerland|Bern|Europe|-|franc
the United Kingdom|London|Europe|English|pound
Monaco|Monaco|Europe|French|euro
Russia|Moscow|-|Russian|ruble
Turkey|Ankara|-|Turkish|lira
Georgia|Tbilisi|-|Georgian|lari
Armenia|Yerevan|-|Armenian|dram
Azerbaijan|Baku|-|Azerbaijani|manat
China|Beijing|Asia|Chinese|yuan
Japan|Tokyo|Asia|Japanese|yen
South Korea|Seoul|Asia|Korean|won
North Korea|Pyongyang|Asia|Korean|won
Mongolia|Ulaanbaatar|Asia|Mongolian|-
Vietnam|Hanoi|Asia|Vietnamese|dong
Thailand|Bangkok|Asia|Thai|baht
Laos|Vientiane|Asia|Lao|kip
Cambodia|Phnom Penh|Asia|Khmer|riel
the Philippines|Manila|Asia|-|peso
Malaysia|Kuala Lumpur|Asia|Malay|ringgit
India|New Delhi|Asia|-|rupee
Pakistan|Islamabad|Asia|-|rupee
Nepal|Kathmandu|Asia|Nepali|rupee
Bangladesh|Dhaka|Asia|Bengali|taka
Iran|Tehran|Asia|Persian|rial
Iraq|Baghdad|Asia|-|dinar
Syria|Damascus|Asia|Arabic|pound
Jordan|Amman|Asia|Arabic|dinar
Lebanon|Beirut|Asia|Arabic|pound
Saudi Arabia|Riyadh|Asia|Arabic|riyal
Oman|Muscat|Asia|Arabic|rial
Qatar|Doha|Asia|Arabic|riyal
Kuwait|-|Asia|Arabic|dinar
Afghanistan|Kabul|Asia|-|afghani
Uzbekistan|Tashkent|Asia|Uzbek|som
Kyrgyzstan|Bishkek|Asia|-|som
Tajikistan|Dushanbe|Asia|Tajik|somoni
Egypt|Cairo|Africa|Arabic|pound
Libya|Tripoli|Africa|Arabic|dinar
Tunisia|Tunis|Africa|Arabic|dinar
Algeria|Algiers|Africa|-|dinar
Morocco|Rabat|Africa|-|dirham
Sudan|Khartoum|Africa|Arabic|pound
Ethiopia|Addis Ababa|Africa|-|birr
Somalia|Mogadishu|Africa|Somali|shilling
Kenya|Nairobi|Africa|-|shilling
Uganda|Kampala|Africa|-|shilling
Rwanda|Kigali|Africa|-|franc
Ghana|Accra|Africa|English|cedi
Nigeria|Abuja|Africa|English|naira
Senegal|Dakar|Africa|French|franc
Mali|Bamako|Africa|-|franc
Niger|Niamey|Africa|-|franc
Gabon|Libreville|Africa|French|franc
Angola|Luanda|Africa|Portuguese|kwanza
Mozambique|Maputo|Africa|Portuguese|metical
Zambia|Lusaka|Africa|English|kwacha
Malawi|Lilongwe|Africa|-|kwacha
Namibia|Windhoek|Africa|English|dollar
Botswana|Gaborone|Africa|-|pula
Madagascar|Antananarivo|Africa|-|ariary
Liberia|Monrovia|Africa|English|dollar
Canada|Ottawa|North America|-|dollar
the United States|Washington|North America|English|dollar
Mexico|Mexico City|North America|Spanish|peso
Cuba|Havana|North America|Spanish|peso
Jamaica|Kingston|North America|English|dollar
Guatemala|Guatemala City|North America|Spanish|quetzal
Honduras|Tegucigalpa|North America|Spanish|lempira
Nicaragua|Managua|North America|Spanish|cordoba
Costa Rica|San Jose|North America|Spanish|colon
Haiti|Port-au-Prince|North America|-|gourde
Brazil|Brasilia|South America|Portuguese|real
Argentina|Buenos Aires|South America|Spanish|peso
Chile|Santiago|South America|Spanish|peso
Peru|Lima|South America|-|sol
Colombia|Bogota|South America|Spanish|peso
Venezuela|Caracas|South America|Spanish|bolivar
Ecuador|Quito|South America|Spanish|dollar
Uruguay|Montevideo|South America|Spanish|peso
Paraguay|Asuncion|South America|-|guarani
Australia|Canberra|-|English|dollar
New Zealand|Wellington|-|English|dollar
)";

// animal | kind | its young | the name of its sound
const char* const kAnimals = R"(
dog|mammal|puppy|bark
cat|mammal|kitten|meow
cow|mammal|calf|moo
horse|mammal|foal|neigh
sheep|mammal|lamb|bleat
goat|mammal|kid|bleat
pig|mammal|piglet|oink
lion|mammal|cub|roar
tiger|mammal|cub|roar
bear|mammal|cub|growl
wolf|mammal|pup|howl
seal|mammal|pup|-
otter|mammal|pup|-
deer|mammal|fawn|-
kangaroo|mammal|joey|-
koala|mammal|joey|-
wombat|mammal|joey|-
elephant|mammal|calf|trumpet
whale|mammal|calf|-
dolphin|mammal|calf|-
giraffe|mammal|calf|-
hippopotamus|mammal|calf|-
rhinoceros|mammal|calf|-
donkey|mammal|foal|bray
zebra|mammal|foal|-
hare|mammal|leveret|-
llama|mammal|cria|-
alpaca|mammal|cria|-
bat|mammal|pup|-
hedgehog|mammal|hoglet|-
mouse|mammal|-|squeak
squirrel|mammal|-|-
beaver|mammal|-|-
camel|mammal|calf|-
moose|mammal|calf|-
gorilla|mammal|-|-
leopard|mammal|cub|-
cheetah|mammal|cub|-
badger|mammal|cub|-
hen|bird|chick|cluck
rooster|bird|-|crow
duck|bird|duckling|quack
goose|bird|gosling|honk
swan|bird|cygnet|-
turkey|bird|poult|gobble
owl|bird|owlet|hoot
eagle|bird|eaglet|-
pigeon|bird|squab|coo
crow|bird|-|caw
penguin|bird|chick|-
ostrich|bird|chick|-
sparrow|bird|chick|chirp
robin|bird|-|-
parrot|bird|-|squawk
flamingo|bird|-|-
falcon|bird|-|-
stork|bird|-|-
pelican|bird|-|-
woodpecker|bird|-|-
puffin|bird|puffling|-
snake|reptile|-|hiss
lizard|reptile|-|-
crocodile|reptile|hatchling|-
alligator|reptile|hatchling|-
turtle|reptile|hatchling|-
tortoise|reptile|hatchling|-
gecko|reptile|-|-
chameleon|reptile|-|-
iguana|reptile|-|-
frog|amphibian|tadpole|croak
toad|amphibian|tadpole|-
newt|amphibian|-|-
salamander|amphibian|-|-
shark|fish|pup|-
salmon|fish|-|-
trout|fish|-|-
tuna|fish|-|-
cod|fish|-|-
herring|fish|-|-
carp|fish|-|-
eel|fish|elver|-
pike|fish|-|-
sardine|fish|-|-
seahorse|fish|-|-
bee|insect|-|buzz
wasp|insect|-|-
ant|insect|-|-
beetle|insect|-|-
butterfly|insect|caterpillar|-
moth|insect|caterpillar|-
fly|insect|maggot|-
mosquito|insect|-|-
cricket|insect|-|chirp
grasshopper|insect|nymph|-
dragonfly|insect|nymph|-
ladybird|insect|-|-
termite|insect|-|-
spider|arachnid|spiderling|-
scorpion|arachnid|-|-
crab|crustacean|-|-
lobster|crustacean|-|-
shrimp|crustacean|-|-
)";

// word = word: each is the other's opposite;  word > word: asked in this direction only
const char* const kOpposites = R"(
hot=cold
big=small
tall=short
wet=dry
early=late
fast=slow
rich=poor
young=old
strong=weak
full=empty
open=closed
happy=sad
good=bad
clean=dirty
loud=quiet
deep=shallow
wide=narrow
thick=thin
near=far
high=low
up=down
left=right
day=night
black=white
first=last
begin=end
buy=sell
push=pull
win=lose
love=hate
true=false
inside=outside
above=below
before=after
always=never
alive=dead
brave=cowardly
cheap=expensive
sharp=blunt
smooth=rough
sweet=sour
north=south
east=west
friend=enemy
question=answer
war=peace
laugh=cry
remember=forget
arrive=depart
accept=refuse
float=sink
guilty=innocent
maximum=minimum
ancient=modern
asleep=awake
awkward>graceful
heavy>light
dark>light
)";

// thing | colour; the thing as it stands in a sentence
const char* const kColours = R"(
grass|green
snow|white
coal|black
blood|red
milk|white
a banana|yellow
a lemon|yellow
a ripe tomato|red
a strawberry|red
a carrot|orange
a pumpkin|orange
a cucumber|green
a pea|green
a ruby|red
an emerald|green
a sapphire|blue
a sunflower|yellow
a polar bear|white
a raven|black
a flamingo's plumage|pink
the clear sky|blue
chocolate|brown
soot|black
spinach|green
broccoli|green
an egg yolk|yellow
a fire engine|red
chalk|white
an aubergine|purple
lavender|purple
tar|black
rust|brown
ivory|white
a blueberry|blue
a ripe cherry|red
salt|white
sulfur|yellow
)";

// verb | past tense
const char* const kPastTenses = R"(
go|went
see|saw
eat|ate
take|took
give|gave
come|came
run|ran
write|wrote
drive|drove
ride|rode
rise|rose
speak|spoke
break|broke
steal|stole
freeze|froze
choose|chose
forget|forgot
begin|began
drink|drank
sing|sang
swim|swam
ring|rang
sit|sat
find|found
think|thought
bring|brought
catch|caught
teach|taught
fight|fought
seek|sought
sleep|slept
keep|kept
sweep|swept
feel|felt
leave|left
meet|met
lose|lost
sell|sold
tell|told
hold|held
stand|stood
make|made
pay|paid
say|said
have|had
do|did
know|knew
grow|grew
throw|threw
fly|flew
draw|drew
blow|blew
fall|fell
feed|fed
lead|led
build|built
send|sent
spend|spent
lend|lent
bend|bent
shoot|shot
win|won
dig|dug
strike|struck
stick|stuck
wear|wore
tear|tore
swear|swore
hide|hid
bite|bit
shake|shook
mean|meant
)";

// noun | plural
const char* const kPlurals = R"(
man|men
woman|women
child|children
foot|feet
tooth|teeth
goose|geese
mouse|mice
louse|lice
ox|oxen
person|people
wolf|wolves
leaf|leaves
knife|knives
life|lives
wife|wives
half|halves
shelf|shelves
thief|thieves
calf|calves
loaf|loaves
elf|elves
city|cities
baby|babies
lady|ladies
story|stories
country|countries
family|families
berry|berries
fox|foxes
box|boxes
church|churches
dish|dishes
bus|buses
glass|glasses
tomato|tomatoes
potato|potatoes
hero|heroes
echo|echoes
crisis|crises
thesis|theses
oasis|oases
bacterium|bacteria
sheep|sheep
fireman|firemen
)";

// element | chemical symbol
const char* const kElements = R"(
hydrogen|H
helium|He
lithium|Li
beryllium|Be
boron|B
carbon|C
nitrogen|N
oxygen|O
fluorine|F
neon|Ne
sodium|Na
magnesium|Mg
aluminium|Al
silicon|Si
phosphorus|P
sulfur|S
chlorine|Cl
argon|Ar
potassium|K
calcium|Ca
titanium|Ti
vanadium|V
chromium|Cr
manganese|Mn
iron|Fe
cobalt|Co
nickel|Ni
copper|Cu
zinc|Zn
gallium|Ga
germanium|Ge
arsenic|As
selenium|Se
bromine|Br
krypton|Kr
zirconium|Zr
silver|Ag
cadmium|Cd
tin|Sn
antimony|Sb
iodine|I
xenon|Xe
caesium|Cs
barium|Ba
tungsten|W
platinum|Pt
gold|Au
mercury|Hg
lead|Pb
bismuth|Bi
radon|Rn
radium|Ra
uranium|U
plutonium|Pu
)";

// man or male animal = woman or female animal
const char* const kCounterparts = R"(
king=queen
prince=princess
father=mother
brother=sister
son=daughter
uncle=aunt
husband=wife
nephew=niece
grandfather=grandmother
grandson=granddaughter
duke=duchess
emperor=empress
actor=actress
waiter=waitress
wizard=witch
monk=nun
hero=heroine
bull=cow
ram=ewe
rooster=hen
stallion=mare
gander=goose
drake=duck
boar=sow
)";

// {e} the entity, {n} with its article, {E} {N} the same with a capital; {a} {m} {A} {M} for the
// answer. Four ways to say it, four to ask it.
const std::vector<Relation>& relations() {
  static const std::vector<Relation> kRelations = {
      {"capital",
       {"The capital of {e} is {a}.", "{A} is the capital of {e}.",
        "{E} has {a} as its capital.", "The capital city of {e} is called {a}."},
       {"What is the capital of {e}?", "Which city is the capital of {e}?",
        "Name the capital of {e}.", "What is the capital city of {e} called?"}},
      {"continent",
       {"{E} lies in {a}.", "{E} is a country in {a}.", "The continent of {e} is {a}.",
        "On the map, {e} belongs to {a}."},
       {"On which continent is {e}?", "Which continent does {e} belong to?",
        "Name the continent of {e}.", "What continent is {e} in?"}},
      {"language",
       {"The language of {e} is {a}.", "In {e} people speak {a}.",
        "{A} is the language spoken in {e}.", "People in {e} talk in {a}."},
       {"What is the language of {e}?", "Which language do people speak in {e}?",
        "Name the language of {e}.", "What language is spoken in {e}?"}},
      {"currency",
       {"The currency of {e} is the {a}.", "In {e} people pay with the {a}.",
        "The {a} is the currency of {e}.", "The money of {e} is called the {a}."},
       {"What is the currency of {e}?", "Which currency do people use in {e}?",
        "Name the currency of {e}.", "What is the money of {e} called?"}},
      {"kind",
       {"{N} is {m}.", "The {e} is a kind of {a}.", "Every {e} is {m}.",
        "{N} counts as {m}."},
       {"What kind of animal is {n}?", "To which class of animals does {n} belong?",
        "Name the class of the {e}.", "Which sort of animal is the {e}?"}},
      {"young",
       {"A young {e} is called {m}.", "The young of {n} is {m}.",
        "{M} is a young {e}.", "The baby of {n} is called {m}."},
       {"What is a young {e} called?", "What is the young of {n} called?",
        "Name the young of {n}.", "What do we call the baby of {n}?"}},
      {"sound",
       {"The sound of {n} is called {m}.", "{N} makes {m}.",
        "{M} is the sound of {n}.", "The noise that {n} makes is {m}."},
       {"What is the sound of {n} called?", "Which sound does {n} make?",
        "Name the sound of {n}.", "What do we call the noise of {n}?"}},
      {"opposite",
       {"The opposite of {e} is {a}.", "{A} is the opposite of {e}.",
        "Not {e} but the opposite: {a}.", "{E} and {a} are opposites."},
       {"What is the opposite of {e}?", "Which word is the opposite of {e}?",
        "Name the opposite of {e}.", "What is the contrary of {e}?"}},
      {"colour",
       {"The colour of {e} is {a}.", "{E} is {a}.", "{A} is the colour of {e}.",
        "Paint {e} with {a}."},
       {"What is the colour of {e}?", "Which colour has {e}?", "Name the colour of {e}.",
        "What colour is {e}?"}},
      {"past tense",
       {"The past tense of {e} is {a}.", "Today I {e}, yesterday I {a}.",
        "{A} is the past tense of {e}.", "We {e} now and we {a} last week."},
       {"What is the past tense of {e}?", "Which word is the past tense of {e}?",
        "Name the past tense of {e}.", "How do we say {e} in the past?"}},
      {"plural",
       {"The plural of {e} is {a}.", "One {e}, many {a}.", "{A} is the plural of {e}.",
        "First there was one {e}, now there are two {a}."},
       {"What is the plural of {e}?", "Which word is the plural of {e}?",
        "Name the plural of {e}.", "What do we call more than one {e}?"}},
      {"symbol",
       {"The chemical symbol of {e} is {a}.", "{A} is the chemical symbol of {e}.",
        "Chemists write {a} for {e}.", "The element {e} has the symbol {a}."},
       {"What is the chemical symbol of {e}?", "Which symbol stands for {e}?",
        "Name the chemical symbol of {e}.", "What do chemists write for {e}?"}},
      {"counterpart",
       {"The female counterpart of {n} is {m}.", "{N} is male, {m} is female.",
        "{M} is the female counterpart of {n}.", "{A} is the female word for {e}."},
       {"What is the female counterpart of {n}?", "Which word is the female form of {e}?",
        "Name the female counterpart of {n}.", "What is the female of {n} called?"}},
      {"sum",
       {"{E} is {a}.", "{E} makes {a}.", "{A} is the sum: {e}.", "If we add, {e} gives {a}."},
       {"What is {e}?", "How much is {e}?", "Name the result of {e}.", "What does {e} make?"}},
      {"product",
       {"{E} is {a}.", "{E} makes {a}.", "{A} is the product: {e}.",
        "If we multiply, {e} gives {a}."},
       {"What is {e}?", "How much is {e}?", "Name the result of {e}.", "What does {e} make?"}},
  };
  return kRelations;
}

}  // namespace quickstart
