// The small world, part one: countries, animals, colours, chemical elements. One row a line, fields
// between bars; "-" leaves a field out. Nothing here is drawn at random.
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

}  // namespace quickstart
