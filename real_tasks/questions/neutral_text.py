"""The text of `neutral.DEFAULT_NEUTRAL`: plain paragraphs with blank lines between."""

PARAGRAPHS = """
The rain began shortly after breakfast and kept up until the middle of the afternoon. Water ran
along the edge of the pavement and gathered in a shallow pool beside the bus stop. People stepped
around it without looking up. By four o'clock the clouds had thinned, and a pale light lay on the
wet roofs across the street.

She cut the onions first, because they take the longest, and put them into the pan with a little
oil. While they softened she peeled the carrots and rinsed the lentils in a sieve. The kitchen
window was fogged from the steam. When everything was in the pot she lowered the flame, put the lid
on, and set the table for three.

The road to the farm is narrow and has grass growing down the middle. Two cars cannot pass each
other there, so one of them has to back up to the gate. In summer the hedges on both sides grow
tall and brush against the doors. The postman comes by in the morning and leaves the letters in a
box at the corner.

To mend the chair he first took it apart. The old glue had turned brittle and came off in flakes.
He sanded the joints, spread new glue on them with a small brush, and pressed the pieces together
with two clamps. It had to stand overnight. The next morning he wiped the legs with oil and carried
the chair back to the dining room.

The library opens at nine and is quiet for the first hour. A few older men read newspapers near the
radiator. Later, students arrive and spread their notes over the long tables under the lamps. The
woman at the desk sorts the returned books by shelf, puts them on a trolley, and pushes it slowly
from one aisle to the next.

We packed the tent, the stove and two blankets, and left the house before it was light. The train
was almost empty. At the last station we filled our bottles at a tap and followed the path along
the stream. By noon we had reached the clearing, where we ate bread and apples and lay in the grass
for a while.

On Saturdays the square is filled with stalls. One sells cheese and eggs, another has flowers in
tin buckets, and at the far end a man sharpens knives. People stop to talk, and children run
between the tables. Towards one o'clock the sellers begin to fold their awnings, and the pigeons
come down to see what was left.

The office is on the third floor, at the end of a long corridor with grey carpet. There are six
desks, a printer that is often out of paper, and a plant that somebody waters on Mondays. From the
window you can see the car park and a row of young trees. In the evening the cleaner comes and
empties the baskets.

Before painting the wall, cover the floor with old sheets and move the furniture to the centre of
the room. Fill the small holes, let the filler dry, and rub it smooth. Begin at the top with a
wide brush and work your way down. Open a window while you paint, and wash the brushes before the
paint gets hard.

The dog waited by the door with its lead in its mouth. They went out through the garden and across
the field, where the ground was still soft. A neighbour waved from her tractor. At the old barn they
turned round, because the wind had become cold, and on the way home the dog stopped at every post
along the fence.

My aunt keeps buttons in a glass jar on the shelf above her sewing machine. When a shirt has lost
one, she pours them out on the table and looks for a match. There is almost always something close
enough. She threads the needle, sews the button on with four or five stitches, and bites off the
end of the thread.

The ferry leaves every forty minutes from the pier below the hotel. Passengers walk up a metal ramp
and find a seat on the upper deck, or stay inside when the weather is poor. The crossing takes a
quarter of an hour. Halfway over, you can see both shores, with small houses and gardens coming
down to the water.

He wrote the list on the back of an envelope: milk, rice, soap, light bulbs, something for supper.
At the shop he forgot the envelope in the car and had to remember it all. He came home with milk,
rice and soap, and with a bag of pears that had not been on the list but looked good.

In the workshop the tools hang on a board, and the outline of each is drawn behind it in pencil. A
glance is enough to see what is missing. The bench is under the window, where the light is best.
Shavings lie on the floor all day, and somebody sweeps them into a sack before the lamps are
switched off.

The morning class has twelve pupils, most of whom come by bicycle. They hang their coats on the
hooks by the door and take their places. The teacher writes the plan of the day on the board, and
two pupils hand out the workbooks. During the break they play in the yard, unless it rains, and
then they stay in the hall.

Fold the towel lengthwise, then once more, and lay it over the rail so that both sides hang evenly.
The small ones go on the shelf. When the basket is full, sort the washing by colour and start the
machine. In dry weather everything can hang on the line behind the house, where the sun reaches it
until evening.

A thin layer of snow had fallen in the night, and nobody had walked on it yet. The bins by the gate
wore white caps. From the chimney across the road a line of smoke went straight up. I put on boots,
took the broom from the shed, and cleared a path from the front door to the steps.

The bakery is busiest between seven and eight. The loaves are stacked in baskets behind the counter
and the rolls are still warm. A bell rings each time the door opens. The girl at the till knows
what most of the customers want, and begins to wrap it in paper before they have reached the front
of the queue.

They moved the piano on a Sunday, with the help of three friends and a low trolley. The stairs were
the hard part. They stopped on every landing to rest and to look at the next turn. Once it stood in
the new living room, somebody played a few notes, and everyone agreed that it would have to be
tuned.

The bus goes from the station to the hospital and then along the river to the edge of town. In the
morning it is crowded as far as the school, and after that there are seats again. The driver nods
at people whom he sees every day. At the last stop he switches off the engine and pours coffee from
a flask.

In spring the allotments are full of people with spades. They turn the soil, pull out roots and
argue about where the beans should go. Water comes from a pump near the entrance, and there is a
row of green cans beside it. Whoever leaves last closes the gate and hangs the key on its nail
behind the hut.

The letter had been folded twice and smelled faintly of soap. It told of ordinary things: the new
neighbours, a cough that would not go away, the price of firewood, a cousin's visit. At the bottom
there was a drawing of the garden shed with its new roof. She read it at the kitchen table, and
answered it the same evening.

To clean the bicycle, turn it upside down on an old cloth. Wipe the chain with a rag until it leaves
no more black marks, then put a drop of oil on each link and turn the pedals. Check that the brakes
touch the rims on both sides. Pump up the tyres, set it upright again, and ride once round the
block.

The swimming pool closes for two weeks in August. The water is let out, and the tiles are scrubbed
with long brushes. Two men in rubber boots repair the joints and paint the lines again. Filling the
pool takes almost three days. On the morning of the opening there is a small queue outside, with
towels under their arms.

He keeps his notes in a row of cardboard boxes, one for every year. Each box has a label on the
front and a sheet inside with a list of what it holds. It is an old habit, and he does not always
keep to it. Still, when someone asks for a paper, he usually finds it before the tea has gone cold.

The waiting room has eight chairs along two walls and a low table with magazines. A clock ticks
above the door. Every few minutes the nurse comes in, reads a name from a card, and somebody gets up
and follows her. The others move their bags, look at the clock, and go on turning the pages.

After the storm a branch lay across the drive. It was too heavy to lift, so they sawed it into
short pieces and stacked them against the wall. The leaves went on the compost. It took them most
of the morning, and at the end of it there was enough wood for a few cold evenings, once it had
dried.

The flat is small but has a balcony, wide enough for a chair and a pot of herbs. The neighbours'
washing hangs opposite, and in between there is a courtyard with a chestnut tree. In the evening
you can hear plates and voices through the open windows. Around ten o'clock it becomes quiet, and
the lights go out one after another.

Pour the flour into a bowl and make a hollow in the middle. Add the yeast with some warm water, stir
in a little of the flour, and wait until it begins to foam. Then knead everything for ten minutes.
Cover the dough with a cloth and leave it in a warm place, away from draughts, until it has grown to
twice its size.

The bridge has been closed since Monday, and the traffic goes round by the mill. Men in yellow
jackets take up the old planks and lay new ones. They say it will be finished by the end of the
month. Until then the children walk to school by the lower path, which is longer but has better
puddles.

Our table at the café was near the door, so that we felt the cold each time someone came in. We
ordered soup and kept our scarves on. At the next table two women were planning a journey, with a
map between the cups. It was getting dark when we paid, and the lamps along the street were already
lit.

The museum guard has the same round every day, through four rooms and back. He knows which boards
creak and where visitors stand the longest. Late in the afternoon, the sun comes through the high
windows and moves over the floor. He straightens a rope, answers a question about the cloakroom, and
looks forward to his supper.

There was a fault in the heating, and the engineer came on Thursday with a case of tools. He took
off the cover, listened for a moment, and changed a small valve. Then he let the air out of every
radiator, starting on the ground floor. Within an hour the rooms were warm, and he filled in a form
and left.

The choir meets in the hall behind the church. They begin with scales, standing in three rows, and
then sit down to look at the new piece. The tenors are too few and the altos too loud, which is how
it always is. At nine there are biscuits. Those who live on the hill walk home together with a
torch.

The night train has narrow beds that fold down from the wall. A man comes along the corridor and
hands out sheets and small bottles of water. For a while there are lights outside, then only fields.
You wake at the stations, when the wheels stop, hear somebody speak on the platform, and fall asleep
again as the train moves on.

Grandfather's watch lay in a drawer for years, until my brother took it to a shop to have it
cleaned. The man behind the counter opened the back and looked at it through a lens. It only wanted
oil and a new strap. Now it runs again, a few minutes slow, and my brother sets it every morning by
the radio.

The printer's shop smells of ink and paper. Posters for the summer fair hang from a cord to dry.
There are drawers full of letters, sorted by size, and a press with a heavy iron wheel that nobody
uses any more. Most of the work is done by two newer machines at the back, which hum all day behind
a curtain.

We planted the seedlings in two rows, a hand's width apart, and pressed the soil around them with
our fingers. Each got a little water. In the evening we covered them with a net because of the
birds. A week later most of them stood upright, and the ones that had not taken were replaced from
the tray on the windowsill.

The meeting was moved to the large room, because more people came than had been expected. Someone
fetched chairs from next door. The first item was the new fence, the second the key to the cellar,
and the third was put off until the autumn. After an hour they thanked the chairman and went down to
the yard.

Just before the shop closes, the last customers hurry along the aisles with their baskets. The
lights over the vegetables go out first. A boy in an apron pulls down the shutters, and another
counts the coins at the till. Outside, the pavement has been swept, and the empty crates stand in a
pile for the morning van.
"""
